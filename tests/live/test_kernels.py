"""The Triton kernels, run by its interpreter (see conftest.py), give what plain torch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli.live.batch.selection import Selection
from randes_cli.live.kernels import launch as kernels
from randes_cli.live.kernels.forms import Form, base_form, code_form, cut
from randes_cli.live.weights import blocks
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


@pytest.mark.parametrize(
    ("count", "forms", "groups", "width"),
    [
        (20, (Form(32, 32, 2, 2, 4), Form(16, 16, 2, 2, 4)), 3, 96),
        (6, (Form(16, 64, 3, 2, 4), Form(32, 32, 1, 2, 4)), 3, 96),
        (20, (Form(32, 256, 2, 2, 4), Form(16, 32, 3, 2, 4)), 1, 576),
    ],
    ids=["many rows", "few rows", "one group"],
)
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("bits", BITS)
def test_products_of_rows_of_several_groups(
    bits: int,
    every: int,
    count: int,
    forms: tuple[Form, Form],
    groups: int,
    width: int,
) -> None:
    made = (matrix(37, width, every, group, bits) for group in range(groups))
    held, wanted = zip(*made, strict=True)
    source = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source).half()

    x = numbers(count, 2, width)[:, 1]  # as the last token of each row is
    base = numbers(37, width)
    across, down = numbers(groups, 4, width), numbers(groups, 4, 37)
    # A row asks the base, or three where there is one group; of three groups group 1 has no rows,
    # and task 3 is in two.
    tasks = Selection.of([*([0, 1, 2, 3] * 5)[: count - 4], 3, 9, 4, 5], x.device)
    members = (frozenset(range(4)), frozenset({8}), frozenset({3, 4, 5}))
    slots = tasks.slots(count, members[:groups], x.device)
    slots = slots._replace(tasks=slots.tasks % 4)
    found = kernels.mixed_product(
        x,
        base,
        torch.stack([one.stored for one in held]),
        across,
        down,
        torch.full((groups,), 2.0**-9 if bits == 16 else 1.0),
        torch.tensor([blocks.partners(every, g) for g in range(groups)], dtype=torch.int32),
        slots,
        bits=0 if bits == 16 else bits,
        every=every,
        forms=forms,
    )
    matrices = torch.stack(wanted).half().float()
    right = x.float() @ base.float().T
    for row, group, task in zip(slots.rows, slots.groups, slots.tasks, strict=True):
        inputs = (x[row] * across[group, task]).float()
        right[row] += (matrices[group] @ inputs) * down[group, task].float()
    assert found.dtype == torch.float16
    assert (found.float() - right).abs().max() <= 2e-3 * right.abs().max()


@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(
    "shape", [(8, 64), (1024, 1024), (4096, 4096), (11008, 4096), (4096, 11008), (128256, 4096)]
)
def test_every_part_has_something_to_do_and_no_matrix_is_in_few(
    shape: tuple[int, int], groups: int, batch: int
) -> None:
    for bits in (0, 1, 2, 3, 4, 8):
        for every in (1, 8):
            codes = code_form(shape, bits, every, groups, -(-batch // groups))
            found = cut(shape, bits, every, base_form(shape, batch), codes)
            blocks = (
                -(-shape[1] // found.of_base.columns),
                -(-found.units // found.of_codes.columns),
            )
            assert 1 <= found.of_base.parts <= blocks[0] and 1 <= found.of_codes.parts <= blocks[1]
            assert found.width >= shape[1] / every and found.height * every >= shape[0]
            programs = -(-shape[0] // found.of_base.rows) * found.of_base.parts
            assert programs >= min(96, blocks[0] * -(-shape[0] // found.of_base.rows))


def test_a_model_answers_alike_through_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(llama, tmp_path, options(bits=2, groups=2))
    models, batch = alone(bank), batch_of({"input_ids": torch.zeros(1, 2, dtype=torch.long)})
    monkeypatch.setattr("randes_cli.live.weights.stack.kernels_for", lambda device: True)
    mixed = attached(bank, hold="codes")
    seen: list[int] = []
    before = torch.ops.randes_cli.mixed_linear

    def counted(x: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.append(len(x))
        found: torch.Tensor = before(x, *more)
        return found

    monkeypatch.setattr("randes_cli.live.weights.stack.mixed_linear", counted)
    assert_rows_are_their_tasks(mixed, models, batch)
    rows = batch["input_ids"].numel()
    assert seen and set(seen) == {rows}
    one = {name: value[:1] for name, value in batch.items()}
    with torch.inference_mode(), mixed.tasks(["sun"]) as model:
        model(**one)
    assert seen[-1] == rows // len(ASKED)
