"""The Triton kernels, run by its interpreter (see conftest.py), give what plain torch gives."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli.live import blocks, kernels
from tests.live.many import (
    ASKED,
    alone,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
)
from tests.live.test_held import BITS, matrix
from tests.models import llama


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("bits", BITS)
def test_products_of_rows_of_several_groups(bits: int, every: int, dtype: torch.dtype) -> None:
    held, wanted = zip(*(matrix(37, 96, every, group, bits) for group in (0, 1, 2)), strict=True)
    source = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source).to(dtype)

    x = numbers(20, 2, 96)[:, 1]  # as the last token of each row is
    base, across, down = numbers(37, 96), numbers(3, 4, 96), numbers(3, 4, 37)
    rows = torch.tensor([*range(17), 18, 19])  # row 17 asks the base; group 1 has no rows
    groups, tasks = torch.tensor([0] * 17 + [2] * 2), torch.arange(19) % 4
    inputs = x[rows] * across[groups, tasks]
    y, more = kernels.mixed_products(
        x,
        base,
        inputs,
        torch.tensor([0, 17, 17, 19], dtype=torch.int32),
        tasks,
        torch.stack([one.stored for one in held]),
        down,
        torch.full((3,), 2.0**-9 if bits == 16 else 1.0),
        torch.tensor([blocks.partners(every, group) for group in range(3)], dtype=torch.int32),
        bits=0 if bits == 16 else bits,
        every=every,
        blocks=(16, 32, 16),
    )
    matrices = torch.stack(wanted).to(dtype).float()
    answers = torch.einsum("nc,nrc->nr", inputs.float(), matrices[groups])
    answers = answers * down[groups, tasks].float()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    for found, right in ((y, x.float() @ base.float().T), (more, answers)):
        assert found.dtype == dtype
        assert (found.float() - right).abs().max() <= tolerance * right.abs().max()


def test_a_model_answers_alike_through_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(llama, tmp_path, options(bits=2, groups=2))
    models, batch = alone(bank), batch_of({"input_ids": torch.zeros(1, 2, dtype=torch.long)})
    monkeypatch.setattr("randes_cli.live.stack.kernels_for", lambda device: True)
    mixed = attached(bank, hold="codes")
    seen: list[int] = []
    before = torch.ops.randes_cli.mixed_linear

    def counted(x: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.append(len(x))
        found: torch.Tensor = before(x, *more)
        return found

    monkeypatch.setattr("randes_cli.live.stack.mixed_linear", counted)
    assert_rows_are_their_tasks(mixed, models, batch)
    rows = batch["input_ids"].numel()
    assert seen and set(seen) == {rows}
    one = {name: value[:1] for name, value in batch.items()}
    with torch.inference_mode(), mixed.tasks(["sun"]) as model:
        model(**one)
    assert seen[-1] == rows // len(ASKED)


def test_the_benchmark_says_that_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "gpu.py"), run_name="__main__")
    assert capsys.readouterr().out == "no CUDA device here: nothing was run\n"
