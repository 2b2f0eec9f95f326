"""Every bank that the suite packs is read again, by the reader that knows documents alone."""

from __future__ import annotations

from pathlib import Path

import torch

from randes_cli import Bank
from tests.independent.reader import Bank as Reader
from tests.independent.reader import Checkpoint


def stored(state: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of each tensor."""
    return {
        name: (
            tuple(value.shape),
            value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
        for name, value in state.items()
    }


def judge(bank: Path, base: Path | None = None) -> None:
    """Fail unless the independent reader retrieves what the product retrieves, byte for byte."""
    reader = Reader(bank, base)
    with Bank.open(bank) as opened:
        assert tuple(reader.tasks) == opened.tasks
        for task in opened.tasks:
            found: Checkpoint = reader.retrieve(task)
            expected = stored(opened.retrieve(task))
            assert {name: (shape, data) for name, (_, shape, data) in found.items()} == expected
