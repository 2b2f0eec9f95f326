"""A model that continues texts: rows of all tasks share its batch, and new ones join between steps.

Each step reads one chunk of the prompts that join, and gives every running answer one token. Rows
end at the same column: shorter ones are filled in front, and the mask tells.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.mixed import MixedModel
from randes_cli.server import cache as caches
from randes_cli.server.answer import Answer, Failed
from randes_cli.server.errors import trace
from randes_cli.server.sampling import Choice, choose

log = logging.getLogger("randes.serve")
#: Columns that a batch must have left for one more to join: who gave way would come back too soon.
_SPARE = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a batch holds.

    Attributes:
        rows: at most so many answers at once.
        cells: rows times columns of keys and values, at most.
        chunk: tokens of prompts that one step reads, all rows together.
    """

    rows: int = 32
    cells: int = 131_072
    chunk: int = 2048


@dataclass(slots=True)
class Batch:
    """Answers with their keys and values.

    Attributes:
        mask: [rows, columns], 0 where a row is filled.
        ids: [rows, columns] of prompts, while they are read; `read` columns were.
    """

    rows: list[Answer]
    mask: torch.Tensor
    ids: torch.Tensor
    cache: Any = field(default_factory=caches.empty)
    read: int = 0

    @classmethod
    def of(cls, rows: Sequence[Answer], device: torch.device) -> Batch:
        """Prompts (and what was answered already), filled in front to the longest."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, longest - len(row.ids) :] = torch.tensor(row.ids)
            mask[number, longest - len(row.ids) :] = 1
        return cls(list(rows), mask.to(device), ids.to(device))

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows go, and columns that no row has."""
        if len(rows) == len(self.rows):
            return
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask.index_select(0, index)
        first = int(mask.any(0).to(torch.uint8).argmax()) if not self.ids.numel() else 0
        self.rows, self.mask = [self.rows[row] for row in rows], mask[:, first:]
        if self.ids.numel():
            self.ids = self.ids.index_select(0, index)
        caches.select(self.cache, rows, first)

    def join(self, other: Batch) -> None:
        """Take the rows of another batch, whose prompts are read."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        masks = [F.pad(b.mask, (width - b.mask.shape[1], 0)) for b in (self, other)]
        caches.join(self.cache, other.cache)
        self.rows, self.mask = self.rows + other.rows, torch.cat(masks)


class Generating:
    """One model for all tasks of its kind. Only the engine's thread calls it."""

    def __init__(self, mixed: MixedModel, sizes: Sizes) -> None:
        caches.check(mixed.model)
        self.mixed, self.sizes = mixed, sizes
        self.waiting: deque[Answer] = deque()
        self.joining: Batch | None = None
        self.running: Batch | None = None
        self.device = next(mixed.model.parameters()).device
        known = inspect.signature(mixed.model.forward).parameters
        self._cache = "cache" if "cache" in known else "past_key_values"
        self._positions = "position_ids" in known
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.joining or self.running)

    @property
    def rows(self) -> int:
        """How many answers are under way."""
        return sum(len(batch.rows) for batch in (self.joining, self.running) if batch)

    def step(self) -> None:
        """One chunk of prompts, and one token for every running answer."""
        self._drop_gone()
        if self.joining is None:
            self._admit()
        if self.joining is not None:
            self._guarded("joining", self._read_chunk)
        if self.running is not None:
            self._make_room()
            self._guarded("running", self._decode)

    def fail(self, message: str) -> None:
        for answer in [*self.waiting, *_rows(self.joining), *_rows(self.running)]:
            answer.tell(Failed(message))
        self.waiting.clear()
        self.joining = self.running = None

    # What comes and goes

    def _drop_gone(self) -> None:
        if any(answer.gone for answer in self.waiting):
            self.waiting = deque(answer for answer in self.waiting if not answer.gone)
        for name in ("joining", "running"):
            batch = getattr(self, name)
            if batch is not None and any(row.gone for row in batch.rows):
                self._keep(name, [n for n, row in enumerate(batch.rows) if not row.gone])

    def _keep(self, name: str, rows: Sequence[int]) -> None:
        if rows:
            getattr(self, name).keep(rows)
        else:
            setattr(self, name, None)

    def _admit(self) -> None:
        """As many of those that wait, in their order, as there is room for."""
        rows, width = _rows(self.running), 0
        if self.running is not None:
            width = self.running.mask.shape[1]
        chosen: list[Answer] = []
        while self.waiting and len(rows) + len(chosen) < self.sizes.rows:
            longest = max(width, len(self.waiting[0].ids) + 1)
            cells = (len(rows) + len(chosen) + 1) * (longest + _SPARE)
            if cells > self.sizes.cells and (rows or chosen):
                break
            width = longest
            chosen.append(self.waiting.popleft())
        if chosen:
            self.joining = Batch.of(chosen, self.device)

    def _make_room(self) -> None:
        """Have the newest answers wait again, while the batch holds more than it may."""
        batch = self.running
        while batch is not None and len(batch.rows) > 1:
            if len(batch.rows) * (batch.mask.shape[1] + 1) <= self.sizes.cells:
                return
            self.waiting.appendleft(batch.rows[-1])
            batch.keep(range(len(batch.rows) - 1))

    # Steps

    def _guarded(self, name: str, run: Callable[[Batch], None]) -> None:
        """Run a step; what goes wrong ends the answers of this batch, and no others."""
        batch = getattr(self, name)
        try:
            run(batch)
        except Exception as error:
            log.error("a step failed: %s", trace(error))
            setattr(self, name, None)
            for row in batch.rows:
                row.tell(Failed(f"the model failed ({type(error).__name__})"))

    def _read_chunk(self, batch: Batch) -> None:
        total = batch.ids.shape[1]
        step = max(1, self.sizes.chunk // len(batch.rows))
        end = min(total, batch.read + step)
        logits = self._forward(batch, batch.ids[:, batch.read : end], batch.mask[:, :end])
        batch.read = end
        if end < total:
            return
        self.joining, batch.ids = None, batch.ids[:, :0]
        going = self._told(batch, logits)
        if not going:
            return
        batch.keep(going)
        if self.running is None:
            self.running = batch
        else:
            self.running.join(batch)

    def _decode(self, batch: Batch) -> None:
        last = torch.tensor([[row.ids[-1]] for row in batch.rows], device=self.device)
        batch.mask = F.pad(batch.mask, (0, 1), value=1)
        going = self._told(batch, self._forward(batch, last, batch.mask))
        self._keep("running", going)

    @torch.inference_mode()
    def _forward(self, batch: Batch, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of the last column, [rows, vocabulary] in float32."""
        options: dict[str, Any] = {self._cache: batch.cache, **self._last}
        if self._positions:
            places = (mask.cumsum(-1) - 1).clamp(min=0)
            options["position_ids"] = places[:, -ids.shape[1] :]
        with self.mixed.tasks([row.task for row in batch.rows]) as model:
            found = model(input_ids=ids, attention_mask=mask, use_cache=True, **options)
        logits: torch.Tensor = found.logits[:, -1].float()
        return logits

    def _told(self, batch: Batch, logits: torch.Tensor) -> list[int]:
        """Give every row its token; the numbers of those that go on."""
        going = []
        for number, choice in enumerate(choose(logits, [row.chooser for row in batch.rows])):
            if self._takes(batch.rows[number], choice):
                going.append(number)
        return going

    @staticmethod
    def _takes(row: Answer, choice: Choice | ValueError) -> bool:
        if isinstance(choice, ValueError):
            row.tell(Failed(str(choice)))
            return False
        try:
            return not row.take(choice)
        except Exception as error:
            log.error("an answer failed: %s", trace(error))
            row.tell(Failed(f"its text could not be made ({type(error).__name__})"))
            return False


def _rows(batch: Batch | None) -> list[Answer]:
    return batch.rows if batch is not None else []
