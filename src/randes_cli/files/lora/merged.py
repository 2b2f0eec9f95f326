"""An adapter merged into its base: a source of tensors like any checkpoint.

Each tensor is base + scaling · B · A, or what else its kind adds (`core.lora`), computed for the
rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from randes_cli.core.arrays import F64, Raw
from randes_cli.core.lora import Elements, Gains, add_to, as_float64, store, updated
from randes_cli.errors import CheckpointError, MismatchError, counted
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.lora.config import LoraConfig, refuse_kind
from randes_cli.files.lora.flat_names import Placed, is_flat
from randes_cli.files.lora.loading import all_gains, loaded
from randes_cli.files.lora.names import Sorted
from randes_cli.files.lora.parts import components, parted, weights_of
from randes_cli.files.lora.places import updates
from randes_cli.files.lora.rows import (
    Rows,
    grown_below,
    piece_rows,
    placed_rows,
    refuse_both,
    shared_rows,
)
from randes_cli.files.lora.ties import (
    Tie,
    find_tie,
    is_tied,
    one_tensor,
    refuse_alone,
    refuse_half,
    refuse_inner,
    refuse_misplaced,
    refuse_shared,
    untold_tie,
    with_tied_biases,
)
from randes_cli.files.lora.view import Part, Update, View
from randes_cli.files.source import Source
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo

#: Updates kept at hand.
_CACHED = 32


class MergedAdapter:
    """A base with an adapter merged in, in the base's names and dtypes.

    `configs` are the base's configurations by component. Attributes beside those of a source:

        adapter: what is merged in.
        untied: components whose embedding and head the adapter parted.
        summary: what was merged, in words.

    Raises CheckpointError (no plain LoRA), MismatchError (of another base; or a low-rank update
    of a tensor that the base has under two names).
    """

    def __init__(
        self,
        base: Source,
        adapter: Checkpoint,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._base = base
        self.adapter = Placed(adapter, base) if is_flat(adapter.tensors) else adapter
        self.source, self.metadata = adapter.source, base.metadata
        self._updates: dict[str, list[Update]] = {}
        self._saved: dict[str, str] = {}
        self._rows: dict[str, Rows] = {}
        #: What the adapter trained whole, apart from what the base ties it to.
        self._alone: set[str] = set()
        self.untied: dict[str, Tie] = {}
        self.notes: tuple[str, ...] = ()
        self._configs = configs or {}
        self._components = components(base)
        ties = {component: self._tie(component) for component in self._components}
        #: The base's tensor by a name of it that the base's file lacks.
        self._copied = {
            tie.head: tie.embedding for tie in ties.values() if tie and tie.head not in base.tensors
        }
        refuse_kind(adapter)
        for component, part, config in parted(self.adapter, base):
            self._place(component, part, config)
        self.tensors = {**base.tensors, **self._own(self._saved)}
        for component, tie in ties.items():
            refuse_inner(self.source, self._configs.get(component), *self._of(component))
            if tie and one_tensor(base, tie.embedding, tie.head):
                self._rows.update(shared_rows(self.source, tie, self._rows, self.tensors))
            if tie and {tie.embedding, tie.head} & {*self._updates, *self._saved}:
                self._part_tie(component, tie)
            elif component not in self._configs:
                changed = {*self._updates, *self._saved}
                self.notes += untold_tie(base.tensors, component, changed)
        for component in self._components:
            start = f"{component}/" if component else ""
            tie = find_tie(self.tensors, self._configs.get(component), start)
            if tie is not None:
                refuse_half(self.source, tie, self.tensors, base.tensors)
        rows = sum(len(rows.places) for rows in self._rows.values())
        counts = ((rows, "row"), (len(self._saved), "tensor"))
        replaced = [f", replaced {counted(count, word)}" for count, word in counts if count]
        found = {one.kind for some in self._updates.values() for one in some}
        kinds = " and ".join(sorted(found or {"LoRA"}))
        merged = f"merged {counted(len(self._updates), f'{kinds} update')} into the base"
        self.summary = "".join([merged, *replaced])
        self._low_rank = lru_cache(maxsize=_CACHED)(self._load)

    def _of(self, component: str) -> tuple[list[str], list[str]]:
        """What the adapter changes of a component, and all that is of it."""
        return (
            [one for one in (*self._updates, *self._saved) if one.rpartition("/")[0] == component],
            [one for one in self.tensors if one.rpartition("/")[0] == component],
        )

    def _place(self, component: str, found: Sorted, config: LoraConfig) -> None:
        weights = weights_of(found)
        part = Part(self._base, component, [*weights, *found.saved])
        tensors = self.adapter.tensors

        def alpha(module: str) -> float | None:
            name = found.alphas.get(module)
            return None if name is None else float(self._whole(name)[0])

        self._rows |= piece_rows(self.source, part, found.saved, tensors, self._whole)
        saved = {}
        for name in (name for name in found.saved if part.piece(name) is None):
            known = name in self._base.tensors and name.partition("/")[1]
            saved[name if known else part.rename(name)] = found.saved[name]
        refuse_misplaced(self.source, saved, self._base, weights)
        saved = with_tied_biases(saved, self._base.tensors, tensors)
        self._alone |= {name for name in saved if config.saves_alone(name)}
        grown = grown_below(part, found.before, tensors, self._copied)
        saved |= grown
        self._saved.update(saved)
        twins = {name: self._twin(name) for name in self._copied}
        part.with_saved({**{n: t for n, t in twins.items() if t}, **self._own(saved)})
        view = View(self.source, part, config, lambda name: tensors[name].shape, alpha)
        self._updates.update(updates(view, found.pairs))
        rows = placed_rows(
            self.source, part, config, found.tokens, tensors, self._whole, self._copied
        )
        refuse_both(self.source, rows, {*self._updates, *self._saved} - grown.keys())
        self._rows.update(rows)

    def _twin(self, name: str) -> TensorInfo | None:
        """The base's tensor of a name, which its file may have under another."""
        twin = self._base.tensors.get(self._copied.get(name, name))
        return twin and twin._replace(name=name)

    def _own(self, saved: Mapping[str, str]) -> dict[str, TensorInfo]:
        """Saved tensors, in the base's dtype where both are floats."""
        made = {}
        for name, inner in saved.items():
            tensor, twin = self.adapter.tensors[inner], self._twin(name)
            both = twin is not None and {twin.dtype, tensor.dtype} <= FLOAT_DTYPES
            dtype = twin.dtype if twin is not None and both else tensor.dtype
            made[name] = TensorInfo(name, dtype, tensor.shape)
        return made

    def _tie(self, component: str) -> Tie | None:
        """Embedding and head of a component that the base's configuration ties."""
        config = self._configs.get(component)
        tie = find_tie(self._base.tensors, config, f"{component}/" if component else "")
        if tie is None:
            return None
        return tie if is_tied(config, tie, self._base.tensors) else None

    def _part_tie(self, component: str, tie: Tie) -> None:
        """Make two tensors of a shared one where the adapter changes one of its names."""
        if not one_tensor(self._base, tie.embedding, tie.head):
            return
        refuse_shared(self.source, tie, self._configs.get(component))
        whole = {name for name in (tie.embedding, tie.head) if self._is_whole(name)}
        adapted = {tie.embedding, tie.head} & set(self._updates)
        if adapted and not whole:
            raise MismatchError(
                f"{self.source}: has a low-rank update of {sorted(adapted)[0]!r}, which the base "
                "ties to another name; PEFT's own merge changes both: keep it an adapter "
                "(--adapters), or untie the base first"
            )
        self._untie(component, tie, whole)

    def _is_whole(self, name: str) -> bool:
        """Whether the adapter has the tensor itself, and no update of it."""
        return name in self._saved and name not in self._updates

    def _untie(self, component: str, tie: Tie, whole: set[str]) -> None:
        saved = [self._saved.get(name) for name in (tie.embedding, tie.head)]
        if len(whole) == 2 and one_tensor(self.adapter, str(saved[0]), str(saved[1])):
            if tie.head not in self._base.tensors:  # stays one, under the base's one name
                del self._saved[tie.head], self.tensors[tie.head]
                self._rows.pop(tie.head, None)
            return
        resized = self.tensors[tie.embedding].shape != self._base.tensors[tie.embedding].shape
        if resized and whole == {tie.embedding}:
            refuse_alone(self.source, tie, self._alone)
            return  # a longer vocabulary, saved once for both
        twin = self._twin(tie.head)
        if tie.head not in self.tensors and twin is not None:
            self.tensors[tie.head] = twin
        self.untied[component] = tie
        self.notes += (
            f"{tie.embedding} and {tie.head}, one tensor in the base, are two now "
            "(tie_word_embeddings: false)",
        )

    def _load(self, name: str) -> tuple[list[Elements], Gains | None]:
        """The updates of a weight, and what it is multiplied by then."""
        updates, tensor = self._updates[name], self.tensors[name]
        found = [loaded(self.source, update, tensor, self._whole) for update in updates]

        def block(first: int, count: int) -> F64:
            raw = np.empty(count * ITEM_SIZE[tensor.dtype], np.uint8)
            self._read_plain(name, first * ITEM_SIZE[tensor.dtype], raw)
            return updated(raw, tensor.dtype, found, first)

        return found, all_gains(self.source, tensor, updates, self._whole, block)

    def _whole(self, name: str, start: int = 0, count: int | None = None) -> F64:
        """The values of one of the adapter's tensors, flat, or `count` of them from `start` on."""
        tensor = self.adapter.tensors[name]
        size = ITEM_SIZE[tensor.dtype]
        raw = np.empty((tensor.elements if count is None else count) * size, np.uint8)
        self.adapter.read(name, start * size, raw)
        return as_float64(raw, tensor.dtype)

    def read(self, name: str, start: int, out: Raw) -> None:
        self._read_plain(name, start, out)
        if name in self._updates and len(out):
            dtype = self.tensors[name].dtype
            updates, gains = self._low_rank(name)
            first = start // ITEM_SIZE[dtype]
            self._check(name, add_to(out, dtype, updates, first, gains))
        if name in self._rows:
            self._rows[name].put(start, out)

    def _read_plain(self, name: str, start: int, out: Raw) -> None:
        if name in self._saved:
            self._read_saved(name, start, out)
        else:
            self._base.read(self._copied.get(name, name), start, out)

    def _read_saved(self, name: str, start: int, out: Raw) -> None:
        tensor, stored = self.tensors[name], self.adapter.tensors[self._saved[name]]
        if tensor.dtype == stored.dtype:
            self.adapter.read(stored.name, start, out)
            return
        count = len(out) // ITEM_SIZE[tensor.dtype]
        raw = np.empty(count * ITEM_SIZE[stored.dtype], np.uint8)
        place = start // ITEM_SIZE[tensor.dtype] * ITEM_SIZE[stored.dtype]
        self.adapter.read(stored.name, place, raw)
        self._check(name, store(as_float64(raw, stored.dtype), tensor.dtype, out))

    def _check(self, name: str, lost: int) -> None:
        if lost:
            raise CheckpointError(
                f"{self.source}: tensor {name!r} passes the range of the base's dtype when merged"
            )
