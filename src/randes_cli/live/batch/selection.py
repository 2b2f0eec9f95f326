"""Which task each row, or each token, of a batch asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from randes_cli.errors import UsageError
from randes_cli.live.batch.lines import Lines


class Slots(NamedTuple):
    """Rows by group: those of the first, then those of the second …

    Attributes:
        rows: row numbers.
        groups: the group of each.
        tasks: the task of each.
        starts: where each group begins, and the end: int32 [G + 1].
        places: of each row its groups, at most k: 2^16 times the group's number, and the row's in
            it; −1 where there are fewer. int32 [k, rows].
        longest: rows of the largest group.
    """

    rows: torch.Tensor
    groups: torch.Tensor
    tasks: torch.Tensor
    starts: torch.Tensor
    places: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Tasks by their numbers.

    Attributes:
        index: task numbers: [rows], or [rows, tokens] where each token has its own.
        only: the task, where there is one alone; shapes of inputs do not matter then.
        tasks: the different tasks, in order.
        host: `index` as a flat list here, so that no device is waited for.
        known: what was asked for before: all layers of a model ask alike.
        seen: where it is watched, the inputs that were told rows by their first dimension (or that
            all rows share, of length 1), and the weights that they met.
    """

    index: torch.Tensor
    only: int | None
    tasks: tuple[int, ...]
    host: tuple[int, ...]
    known: dict[Any, Any] = field(default_factory=dict)
    seen: list[tuple[Lines, Any]] | None = None

    @classmethod
    def of(cls, numbers: Sequence[int] | torch.Tensor, device: torch.device) -> Selection:
        index = torch.as_tensor(numbers, dtype=torch.long)
        flat = tuple(index.reshape(-1).tolist())
        tasks = tuple(sorted(set(flat)))
        only = tasks[0] if len(tasks) == 1 else None
        return cls(index.to(device), only, tasks, flat)

    @property
    def rows(self) -> int:
        return self.index.shape[0]

    def along(self, inputs: torch.Tensor, weight: Any = None) -> torch.Tensor:
        """The tasks of an input's leading dimension (of two where tokens have their own).

        A leading dimension k times as long has k entries for each row: beams, or tokens and
        heads that were folded into it. One of length 1 is shared by all rows. Raises UsageError.
        """
        index, shape = self.index.to(inputs.device), inputs.shape
        if index.dim() == 2:
            if len(shape) > 1 and shape[1] == index.shape[1] and shape[0] in (1, len(index)):
                return index
            index = index.reshape(-1)
        count, rows = shape[0], index.shape[0]
        if self.seen is not None:
            self.seen.append((Lines.of(inputs), weight))
        if self.index.dim() == 2 and rows > 1 and (count == 1 or count % rows):
            raise UsageError(
                f"a layer is given {list(shape)}, which does not come by the {rows} tokens that "
                "name a task each: name a task for each row"
            )
        if count in (1, rows):
            return index
        if count % rows == 0:
            return index.repeat_interleave(count // rows)
        raise UsageError(
            f"the batch names {rows} tasks, and an input of a layer is {list(shape)}: name a task "
            "for each row, or for each token"
        )

    def positions(self, count: int, tasks: Sequence[int]) -> torch.Tensor:
        """Of `count` rows (or tokens) those whose task is among `tasks`."""
        key = (count, tuple(tasks))
        if key not in self.known:
            self.known[key] = self._positions(count, tasks).to(self.index.device)
        found: torch.Tensor = self.known[key]
        return found

    def slots(self, count: int, groups: tuple[frozenset[int], ...], device: torch.device) -> Slots:
        """Of `count` rows (or tokens) those of the tasks of each group."""
        key = (count, groups, device)
        if key not in self.known:
            parts = [self._positions(count, sorted(group)) for group in groups]
            owners = torch.tensor(self.host).repeat_interleave(count // len(self.host))
            sizes = torch.tensor([0, *map(len, parts)])
            rows, starts = torch.cat(parts), sizes.cumsum(0).to(torch.int32)
            of = torch.arange(len(groups)).repeat_interleave(sizes[1:])
            made = (rows, of, owners[rows], starts, _places(parts, count))
            longest = max(map(len, parts))
            rows, of, owned, starts, places = (part.to(device).contiguous() for part in made)
            self.known[key] = Slots(rows, of, owned, starts, places, longest)
        found: Slots = self.known[key]
        return found

    def _positions(self, count: int, tasks: Sequence[int]) -> torch.Tensor:
        spread = count // len(self.host)
        chosen = set(tasks)
        first = [place * spread for place, task in enumerate(self.host) if task in chosen]
        found = torch.tensor(first, dtype=torch.long)[:, None] + torch.arange(spread)
        return found.reshape(-1)


def _places(parts: Sequence[torch.Tensor], count: int) -> torch.Tensor:
    """`Slots.places`, of the rows of each group."""
    found: list[list[int]] = [[] for _ in range(count)]
    for group, part in enumerate(parts):
        for place, row in enumerate(part.tolist()):
            found[row].append(group << 16 | place)
    most = max(1, *map(len, found))
    return torch.tensor([row + [-1] * (most - len(row)) for row in found], dtype=torch.int32).T


#: The blocks that the code that runs is in: tasks of asyncio take those where they were made.
_INSIDE: ContextVar[tuple[object, ...]] = ContextVar("randes_blocks", default=())


class Current:
    """The selection of the block that runs, shared by all weights of an attached model.

    Attributes:
        thread: the one whose block it is.
        blocks: those that are open, the last of which runs.
        words: the ids of the batch that the model runs.
    """

    __slots__ = ("_changed", "_depth", "_runs", "blocks", "selection", "thread", "words")

    def __init__(self) -> None:
        self._changed, self._runs, self._depth = threading.Condition(), 0, 0
        self.selection: Selection | None = None
        self.thread: int | None = None
        self.blocks: list[tuple[object, Selection]] = []
        self.words: torch.Tensor | None = None

    def __reduce__(self) -> Any:
        """Parameters say that a model with tasks is not copied, not this."""
        return Current, ()

    def get(self) -> Selection:
        """Raises UsageError outside a block that names tasks."""
        if self.selection is None:
            raise UsageError("no tasks are named: run the model inside `with mixed.tasks([...]):`")
        return self.selection

    @contextmanager
    def block(self, selection: Selection) -> Iterator[None]:
        """Let a selection run, inside a block of the same thread or alone.

        Raises UsageError where the other block is one that this code is not inside of.
        """
        if not self.inside():
            raise UsageError(
                "another task of asyncio is in a block of this thread, whose answers would be this "
                "one's: let no other run meanwhile (an asyncio.Lock), or use asyncio.to_thread"
            )
        mine, before = (object(), selection), _INSIDE.get()
        self.blocks.append(mine)
        _INSIDE.set((*before, mine[0]))
        self.selection, self.thread = selection, threading.get_ident()
        try:
            yield
        finally:
            last = self.blocks[-1] is mine
            self.blocks.remove(mine)
            self.selection = self.blocks[-1][1] if self.blocks else None
            self.thread = self.thread if self.blocks else None
            if not self.blocks:
                self._end_runs()
            _INSIDE.set(before)
            if not last:
                raise UsageError(
                    "a block ended before one that was opened in it: what this one answered since "
                    "is of the other's tasks"
                )

    def enter(self) -> None:
        """Begin a run of the model when no other thread is in one: parts of it are run for other
        tasks than the block's."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._runs in (0, me))
            self._runs, self._depth = me, self._depth + 1

    def leave(self) -> None:
        """End what was begun by `enter`."""
        with self._changed:
            if self._runs == threading.get_ident():
                self._depth -= 1
                self._runs = self._runs if self._depth else 0
                self._changed.notify_all()

    def _end_runs(self) -> None:
        """Forget one that was interrupted."""
        with self._changed:
            self._runs = self._depth = 0
            self._changed.notify_all()

    def inside(self) -> bool:
        """Whether the code that runs is inside the block that runs, if there is one."""
        return not self.blocks or self.blocks[-1][0] in _INSIDE.get()


def refuse_recording() -> None:
    """Raise UsageError where what runs is recorded, to be run again: its tasks would be, too."""
    compiling = torch.compiler.is_compiling()
    if torch.compiler.is_exporting() or (not compiling and torch._C._get_tracing_state()):
        raise UsageError(
            "a recorded model would repeat the tasks that it was recorded with: export what "
            "from_bank or `randes unpack` gives"
        )


def gathered(table: torch.Tensor, index: torch.Tensor, dims: int) -> torch.Tensor:
    """Rows of a table [T, …] for an index, shaped to meet inputs of `dims` dimensions.

    [rows] → [rows, 1 …, …]; [rows, tokens] → [rows, tokens, 1 …, …].
    """
    made = table[index]
    missing = dims - index.dim() - (table.dim() - 1)
    for _ in range(missing):
        made = made.unsqueeze(index.dim())
    return made
