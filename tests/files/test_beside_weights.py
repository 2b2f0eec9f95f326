"""What a trainer saves beside its weights: what is let in, and what is not."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli.errors import CheckpointError, UsageError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.local.guard import one_command, refuse_input
from tests.files.test_pickles import ALLOWED, Bomb


@pytest.mark.parametrize("zipped", [True, False])
def test_options_and_paths_of_a_trainer_lie_beside_weights(zipped: bool, tmp_path: Path) -> None:
    options = argparse.Namespace(lr=0.1, output=tmp_path, more=argparse.Namespace(layers=[1, 2]))
    content = {"model": {"weight": torch.ones(2)}, "args": options, "epoch": 3}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    assert list(open_checkpoint(str(tmp_path / "model.pth"), ALLOWED).tensors) == ["weight"]


def test_scores_dates_and_states_of_generators_lie_beside_weights(tmp_path: Path) -> None:
    found: dict[str, Any] = {"best": np.float64(0.5), "steps": np.int64(3), "array": np.arange(3)}
    found |= {"random": np.random.RandomState(0).get_state(), "seen": defaultdict(dict, a={})}
    found |= {"at": datetime(2025, 1, 2), "took": timedelta(1), "torch": torch.__version__}
    torch.save({"model": {"weight": torch.ones(2)}, **found}, tmp_path / "new.pth")
    plain = {"model": {"weight": torch.ones(2)}, "best": np.float64(0.5), "array": np.arange(3)}
    torch.save(plain, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "old.pth").read_bytes()  # as NumPy before 2 calls its module
    (tmp_path / "old.pth").write_bytes(data.replace(b"numpy._core.multi", b"numpy.core.multi"))
    for name in ("new.pth", "old.pth"):
        assert list(open_checkpoint(str(tmp_path / name), ALLOWED).tensors) == ["weight"]


@pytest.mark.parametrize(
    ("beside", "called"),
    [
        (Bomb(Path("ran")), r"(\w+\.)*(getattr|touch)"),
        (SimpleNamespace(lr=1), r"types\.SimpleNamespace"),
        (argparse.Namespace(run=len), r"\w*len"),
        (type(Path()).touch, r"\S+"),
        (os.system, r"(posix|nt)\.system"),
        (np.array([os.system], object), r"(posix|nt)\.system"),
    ],
)
def test_what_is_not_let_in_is_called_by_its_name(
    beside: Any, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"weight": torch.ones(2)}, "more": beside}, "model.pth")
    with pytest.raises(CheckpointError, match=rf"holds more than tensors \({called}\); convert"):
        open_checkpoint("model.pth", ALLOWED)
    assert not Path("ran").exists()


def test_a_pickle_is_an_input_and_is_seen_to_change(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(2)}, path)
    with one_command(), open_checkpoint(str(path), ALLOWED) as checkpoint:
        with pytest.raises(UsageError, match="is the input"):
            refuse_input(path)
        assert checkpoint.changed() is None
        os.utime(path, ns=(1, 1))
        assert checkpoint.changed() == path
