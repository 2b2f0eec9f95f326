"""A model that reads texts: rows of all tasks share its batch, and each is read by its own."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from randes_cli.live.mixed import MixedModel
from randes_cli.server.answer import Failed, Reading, Result
from randes_cli.server.errors import trace
from randes_cli.server.generating import Sizes

log = logging.getLogger("randes.serve")


class Encoding:
    """One model for all tasks of its kind. Only the engine's thread calls it."""

    def __init__(self, mixed: MixedModel, sizes: Sizes) -> None:
        self.mixed, self.sizes = mixed, sizes
        self.waiting: deque[Reading] = deque()
        self.device = next(mixed.model.parameters()).device
        self._segments = "token_type_ids" in inspect.signature(mixed.model.forward).parameters
        padding = getattr(mixed.model.config, "pad_token_id", None)
        self._padding = 0 if padding is None else int(padding)
        # transformers' classifiers find the ends of texts by padding.
        ends = type(mixed.model).__name__.endswith("ForSequenceClassification")
        self._most = 1 if ends and padding is None else sizes.rows

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    @property
    def rows(self) -> int:
        """How many texts are under way between steps: none."""
        return 0

    def step(self) -> None:
        """Read as many of the texts that wait, in their order, as a batch holds."""
        chosen: list[Reading] = []
        longest = 0
        while self.waiting and len(chosen) < self._most:
            if self.waiting[0].gone:
                self.waiting.popleft()
                continue
            longest = max(longest, len(self.waiting[0].ids))
            if chosen and (len(chosen) + 1) * longest > self.sizes.chunk:
                break
            chosen.append(self.waiting.popleft())
        if not chosen:
            return
        try:
            results = self._read(chosen)
        except Exception as error:
            log.error("a step failed: %s", trace(error))
            self._tell_all(chosen, Failed(f"the model failed ({type(error).__name__})"))
            return
        for reading, values in zip(chosen, results, strict=True):
            reading.tell(Result(values))

    def fail(self, message: str) -> None:
        self._tell_all(self.waiting, Failed(message))
        self.waiting.clear()

    @staticmethod
    def _tell_all(readings: Sequence[Reading] | deque[Reading], event: Failed) -> None:
        for reading in readings:
            reading.tell(event)

    @torch.inference_mode()
    def _read(self, rows: Sequence[Reading]) -> list[list[float]]:
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self._padding)
        mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            mask[number, : len(row.ids)] = 1
            if row.segments is not None:
                segments[number, : len(row.ids)] = torch.tensor(row.segments)
        given = {"input_ids": ids, "attention_mask": mask}
        if self._segments:
            given["token_type_ids"] = segments
        given = {name: value.to(self.device) for name, value in given.items()}
        with self.mixed.tasks([row.task for row in rows]) as model:
            outputs = model(**given)
        return self._results(rows, outputs, given["attention_mask"])

    @staticmethod
    def _results(rows: Sequence[Reading], outputs: Any, mask: torch.Tensor) -> list[list[float]]:
        """Each row's result; rows with the same reader, and prompt, are read together."""
        made: list[list[float]] = [[] for _ in rows]
        keys = [(id(row.reader), row.skipped) for row in rows]
        for key, first in {key: rows[number] for number, key in enumerate(keys)}.items():
            places = [number for number, other in enumerate(keys) if other == key]
            part = {
                name: value[places]
                for name, value in outputs.items()
                if isinstance(value, torch.Tensor)
            }
            found = first.reader.read(type(outputs)(**part), mask[places], first.skipped)
            for place, values in zip(places, found, strict=True):
                made[place] = values
        return made
