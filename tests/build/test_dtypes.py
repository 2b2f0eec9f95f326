"""Tasks in another dtype than the base, and values beyond one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli.core.kernel import NumpyKernel
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import open_base
from randes_cli.read.places import UnpackOptions
from randes_cli.read.retrieve import Retrieval
from tests.build.decoder import model, round_trip, sub_folder


@pytest.mark.parametrize("theirs", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ours", [torch.float32, torch.float16, torch.bfloat16])
def test_a_task_in_another_dtype_comes_back_in_its_own(
    ours: torch.dtype, theirs: torch.dtype, tmp_path: Path
) -> None:
    base = {name: tensor.to(ours) for name, tensor in model(0).items()}
    task = {name: tensor.to(theirs) for name, tensor in model(1).items()}
    _, _, (back,) = round_trip(tmp_path, base, task)
    assert set(back) == set(task)
    for name, tensor in task.items():
        assert back[name].dtype == theirs
        spread = 0.02 / 16 + 2 * torch.finfo(theirs).eps * tensor.abs().double()
        assert ((back[name].double() - tensor.double()).abs() <= spread).all()


def test_values_beyond_half_precision_are_refused_or_counted(tmp_path: Path) -> None:
    base, task = model(0), model(1)
    for state in (base, task):
        state["model.layers.0.mlp.up_proj.weight"][0, :3] = torch.tensor([70_000.0, -1e6, 65_504.0])
    with pytest.raises(MismatchError, match=r"2 values are beyond the range .* --saturate"):
        round_trip(tmp_path, base, task, out=UnpackOptions(dtype="F16"))
    assert not list((tmp_path / "out").glob("*"))
    clipped = UnpackOptions(dtype="F16", saturate=True)
    _, (report,), (back,) = round_trip(sub_folder(tmp_path, "second"), base, task, out=clipped)
    assert report.saturated == 2
    row = back["model.layers.0.mlp.up_proj.weight"][0, :3]
    assert row.tolist() == [65_504.0, -65_504.0, 65_504.0]


class Losing(NumpyKernel):
    """A kernel that loses one value a strip, slowly."""

    def retrieve_onto(self, *given: Any) -> int:
        time.sleep(0.05)
        return 1

    retrieve = retrieve_onto  # type: ignore[assignment]


def test_saturated_values_are_counted_whichever_thread_meets_them(tmp_path: Path) -> None:
    round_trip(tmp_path, model(0), model(1))
    with BankFile(tmp_path / "bank.randes") as bank:
        retrieval = Retrieval(bank, open_base(bank, None), bank.manifest.tasks[0])
        pieces = [
            retrieval.pieces(name)[0] for name in retrieval.tensors if retrieval.superposed(name)
        ]
        rooms = [np.empty(piece.tensor.nbytes, np.uint8) for piece in pieces]
        threads = [
            threading.Thread(target=retrieval.fill, args=(Losing(2**16, 1), piece, room))
            for piece, room in zip(pieces, rooms, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(threads) > 3
    assert retrieval.saturated == len(threads)
