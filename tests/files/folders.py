"""Folders of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint


def put(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ones((2, 2), np.float32) for name in names or ("w",)}, path)


def refused(folder: Path, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(str(folder))
