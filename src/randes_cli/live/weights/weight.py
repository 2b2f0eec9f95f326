"""One parameter of a model as all tasks of a bank have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.batch.selection import Selection
from randes_cli.live.weights.group import Group
from randes_cli.live.weights.grouping import Block
from randes_cli.live.weights.held import Held

#: A padded table of whole tensors holds this many elements at most; beyond, each task has its own.
MOST_TABLE = 2**22


@dataclass(slots=True, eq=False)
class Weight:
    """A parameter of all tasks; task T, one past the last, is the base, whose values it shares.

    Attributes:
        table: where it is small: each task's whole tensor, [T + 1, …], padded to the longest.
        exact: tasks whose tensor is kept whole beside the base.
        extra: rows that a task has beyond those of the base (a resized vocabulary).
        lengths: the length of its first dimension by task.
        most_groups: groups of the bank that the tasks are in.
        positional: rows stand for positions, so inputs without a batch are shared by all rows.
        shared: no inputs have rows: `Turning` found that out.
    """

    name: str
    base: torch.Tensor
    blocks: tuple[Block, ...]
    table: torch.Tensor | None
    exact: Mapping[int, torch.Tensor]
    extra: Mapping[int, torch.Tensor]
    lengths: Sequence[int]
    most_groups: int
    positional: bool
    relative: bool = False
    shared: bool = False

    def inner(self, task: int, number: int) -> torch.Tensor:
        """One matrix of a stack of them (an expert's) of one task."""
        if self.table is not None or task in self.exact:
            return self.full(task)[number]
        if any(isinstance((b.part.place or (slice(0),))[0], slice) for b in self.blocks):
            return self.full(task)[number]
        made = self.base[number].clone()
        for block in self.blocks:
            if block.part.place[0] == number:
                block.add_to(made, task, block.part.place[1:])
        return made

    def full(self, task: int) -> torch.Tensor:
        """The whole tensor of one task."""
        if self.table is not None:
            whole = self.table[task]
            return whole[: self.lengths[task]] if whole.dim() else whole
        if task in self.exact:
            return self.exact[task]
        made = self.base.clone()
        for block in self.blocks:
            block.add_to(made, task, block.part.place)
        if self.lengths[task] != len(made):
            made = made[: self.lengths[task]]
        return torch.cat([made, self.extra[task]]) if task in self.extra else made

    @property
    def simple(self) -> Block | None:
        """Its block where it is one matrix of outputs by inputs whose signs factor, else None."""
        block = self._looked_up
        return block if block is not None and block.factors else None

    @property
    def _looked_up(self) -> Block | None:
        """Its block where that has its rows."""
        if len(self.blocks) != 1 or self.table is not None or self.blocks[0].part.place:
            return None
        block = self.blocks[0]
        fits = block.groups[0].held.view[0] == self.base.shape[0] and not block.part.turned
        return block if fits else None

    @property
    def at_once(self) -> bool:
        """Whether rows of all tasks are answered together, however many tasks there are."""
        several = any(len(block.groups) > self.most_groups for block in self.blocks)
        several |= self.base.dim() == 2 and bool(self.blocks) and self._looked_up is None
        return not several and not self.exact and all(block.factors for block in self.blocks)

    @property
    def held(self) -> list[Held]:
        """The superpositions that it reads."""
        return [group.held for block in self.blocks for group in block.groups]

    @property
    def nbytes(self) -> int:
        """Bytes beside the base and the superpositions."""
        table = 0 if self.table is None else self.table.nbytes
        own = sum(group.nbytes for block in self.blocks for group in block.groups)
        return table + own + sum(t.nbytes for t in (*self.exact.values(), *self.extra.values()))

    def linear(self, x: torch.Tensor, selection: Selection) -> torch.Tensor:
        """x Wᵀ for each row's task; columns that a row's task lacks are −∞."""
        block = self.simple
        if self.table is not None and selection.only is None:
            return self._table_linear(x, selection)
        if block is None:
            return self.by_task(x, selection, lambda part, t: F.linear(part, self.full(t)))
        base = self.base.flatten(1)
        made = None if block.stack is None else block.stack.linear(x, base, selection)
        if made is None:
            made = F.linear(x, base)
            for group in self.groups_of(block, selection):
                made = self.added(made, x, group, selection)
        return self._own_columns(made, x, selection)

    def linear_turned(self, x: torch.Tensor, selection: Selection) -> torch.Tensor:
        """x W for each row's task."""
        block = self.simple
        if block is None or self.exact or len(set(self.lengths)) > 1:
            return self.by_task(x, selection, lambda part, t: torch.matmul(part, self.full(t)))
        made = torch.matmul(x, self.base)
        for group in self.groups_of(block, selection):
            made = self.added(made, x, group, selection, turned=True)
        return made

    @staticmethod
    def groups_of(block: Block, selection: Selection) -> list[Group]:
        """The groups that the selection's tasks have something in.

        A compiler is given all, so that one graph serves any tasks: what a task has nothing in
        is zeros to it.
        """
        groups = block.factors
        if len(groups) == 1 or torch.compiler.is_compiling():
            return list(groups)
        return [group for group in groups if not group.tasks.isdisjoint(selection.tasks)]

    def added(
        self,
        made: torch.Tensor,
        x: torch.Tensor,
        group: Group,
        selection: Selection,
        *,
        turned: bool = False,
    ) -> torch.Tensor:
        """`made` plus a group's product for the rows of its tasks alone."""
        if selection.only is not None:
            return made + group.product(x, selection.only, turned=turned).to(made.dtype)
        index, fixed = selection.along(x, self), torch.compiler.is_compiling()
        if group.alone or fixed or group.tasks.issuperset(selection.tasks):
            return made + group.product(x, index, turned=turned).to(made.dtype)
        rows, lead = max(x.shape[0], index.shape[0]), index.dim()
        wide = x.expand(rows, *x.shape[1:]).flatten(0, lead - 1)
        out = made.expand(rows, *made.shape[1:])
        flat = out.flatten(0, lead - 1)
        at = selection.positions(len(wide), sorted(group.tasks)).to(x.device)
        more = group.product(wide[at], index.reshape(-1)[at], turned=turned).to(made.dtype)
        return flat.index_add(0, at, more).reshape(out.shape)

    def by_task(
        self,
        x: torch.Tensor,
        selection: Selection,
        run: Callable[[torch.Tensor, int], torch.Tensor],
        tasks: Sequence[int] | None = None,
        onto: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`run` on the rows of each task, put together; on those of `tasks` alone, onto a result.

        A result with fewer columns than others is filled up with −∞.
        """
        if selection.only is not None:
            return run(x, selection.only)
        index = selection.along(x, self)
        rows, lead = max(x.shape[0], index.shape[0]), index.dim()
        wide = x.expand(rows, *x.shape[1:]).flatten(0, lead - 1)
        done = []
        for task in selection.tasks if tasks is None else tasks:
            at = selection.positions(len(wide), [task]).to(x.device)
            done.append((at, run(wide[at], task)))
        width = max(part.shape[-1] for _, part in done)
        if onto is None:
            shape = (len(wide), *done[0][1].shape[1:-1], width)
            flat = done[0][1].new_empty(shape)
        else:
            flat = widened(onto.expand(rows, *onto.shape[1:]), width).flatten(0, lead - 1).clone()
        for at, part in done:
            flat[at] = widened(part, flat.shape[-1])
        return flat.reshape(rows, *x.shape[1:lead], *flat.shape[1:])

    def _table_linear(self, x: torch.Tensor, selection: Selection) -> torch.Tensor:
        """Each row by its own small matrix: one batched product."""
        assert self.table is not None
        index = selection.along(x, self)
        longest = self.longest(selection)
        rows, lead = max(x.shape[0], index.shape[0]), index.dim()
        wide = x.expand(rows, *x.shape[1:])
        inner = wide.flatten(0, lead - 1).reshape(index.numel(), -1, x.shape[-1])
        weights = self.table[index.reshape(-1), :longest].flatten(2)
        made = torch.bmm(inner, weights.transpose(1, 2))
        made = made.reshape(*wide.shape[:-1], longest)
        return self.cut(made, index, longest)

    def longest(self, selection: Selection) -> int:
        """The most rows that a task of the selection has."""
        if len(set(self.lengths)) == 1:
            return self.lengths[0]
        return max(self.lengths[task] for task in selection.tasks)

    def cut(self, made: torch.Tensor, index: torch.Tensor, width: int) -> torch.Tensor:
        """−∞ in the columns beyond each row's own length."""
        if len(set(self.lengths)) == 1:
            return made
        lengths = torch.tensor(self.lengths, device=made.device)[index]
        lengths = lengths.reshape(*index.shape, *[1] * (made.dim() - index.dim()))
        return made.masked_fill(torch.arange(width, device=made.device) >= lengths, -torch.inf)

    def _own_columns(
        self, made: torch.Tensor, x: torch.Tensor, selection: Selection
    ) -> torch.Tensor:
        """What single tasks have of their own: more or fewer columns, or all of them."""
        if not self.exact and len(set(self.lengths)) == 1 and not self.extra:
            return made
        if selection.only is not None:
            return self._columns_of(selection.only, made, x)
        cut = {task for task, length in enumerate(self.lengths) if length < len(self.base)}
        own = [task for task in selection.tasks if task in {*self.exact, *self.extra, *cut}]
        if not own:
            return made
        whole = made.expand(max(len(made), selection.along(x).shape[0]), *made.shape[1:])
        joined = torch.cat([whole, x.expand(whole.shape[0], *x.shape[1:])], -1)

        def run(part: torch.Tensor, task: int) -> torch.Tensor:
            return self._columns_of(task, *torch.split(part, [made.shape[-1], x.shape[-1]], -1))

        onto = whole if len(own) < len(selection.tasks) else None
        return self.by_task(joined, selection, run, own, onto)

    def _columns_of(self, task: int, made: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What one task makes of x, where its tensor in the base's form makes `made` of it."""
        if task in self.exact:
            return F.linear(x, self.exact[task].flatten(1))
        made = made[..., : self.lengths[task]]
        if task not in self.extra:
            return made
        return torch.cat([made, F.linear(x, self.extra[task].flatten(1))], -1)

    def embed(self, ids: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """Rows of each task's matrix; NaN where the task has no such row."""
        spread = index
        if isinstance(index, torch.Tensor):
            spread = index.reshape(*index.shape, *[1] * (ids.dim() - index.dim()))
        if self.table is not None:
            return self.table[spread, ids]
        if self.base.dim() > 2 or (self.blocks and self._looked_up is None):
            return self._embed_by_task(ids, spread)
        inside = ids.clamp(max=len(self.base) - 1)
        made = F.embedding(inside, self.base)
        for block in self.blocks:
            for group in block.groups:
                made = made + group.rows(inside, index)
        if self.exact or self.extra or len(set(self.lengths)) > 1:
            made = self._own_rows(made, ids, spread)
        return made

    def _embed_by_task(self, ids: torch.Tensor, spread: torch.Tensor | int) -> torch.Tensor:
        """Planes of what is no matrix, and rows of one of several superpositions."""
        of = torch.as_tensor(spread, device=ids.device).expand(ids.shape)
        made = self.base.new_full((*ids.shape, *self.base.shape[1:]), torch.nan)
        for task in set(of.reshape(-1).tolist()):
            whole = self.full(task)
            mine = (of == task) & (ids < len(whole))
            made[mine] = whole[ids[mine]]
        return made

    def _own_rows(
        self, made: torch.Tensor, ids: torch.Tensor, spread: torch.Tensor | int
    ) -> torch.Tensor:
        of = torch.as_tensor(spread, device=ids.device).expand(ids.shape)
        ends = [length + len(self.extra.get(task, ())) for task, length in enumerate(self.lengths)]
        beyond = ids >= torch.tensor(ends, device=ids.device)[of]
        for task in {*self.exact, *self.extra}:
            own = self.exact.get(task, self.extra.get(task))
            first = 0 if task in self.exact else self.lengths[task]
            assert own is not None
            mine = ((of == task) & (ids >= first) & ~beyond)[..., None]
            made = torch.where(mine, own[(ids - first).clamp(0, len(own) - 1)], made)
        return made.masked_fill(beyond[..., None], torch.nan)


def widened(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Filled up with columns of −∞."""
    missing = width - tensor.shape[-1]
    return tensor if missing <= 0 else F.pad(tensor, (0, missing), value=-torch.inf)
