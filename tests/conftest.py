"""Fixtures that all tests share; the helpers behind them are in `checkpoints.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import Packer


@pytest.fixture
def packer(tmp_path: Path) -> Packer:
    """Packs state dicts in a folder of its own."""
    return Packer(tmp_path)
