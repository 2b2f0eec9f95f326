"""Forms of a product beside one another, for the shapes that missed their goal (`gpu.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_data import inputs, stacks
from gpu_figures import step_name, timed
from torch.nn import functional as F  # noqa: N812

from randes_cli.live import kernels
from randes_cli.live.selection import Selection, Slots
from randes_cli.live.stack import Stack

#: Rows, bits, groups, which share of the elements a group has, and the goal beside one model.
SHAPES = (
    (16, 2, 1, 1, 1.40),
    (64, 2, 1, 1, 1.40),
    (16, 2, 8, 8, 1.40),
    (64, 2, 8, 8, 1.40),
    (16, 2, 8, 1, 2.50),
    (64, 2, 8, 1, 2.50),
    (16, 8, 1, 1, 1.88),
)


def forms_of(rows: int, bits: int, every: int, groups: int) -> Iterator[tuple[str, kernels.Form]]:
    """What `kernels.form_of` takes, and others that differ from it in one thing."""
    taken = kernels.form_of((4096, 4096), rows, bits, every, groups, rows // groups)
    changes: dict[str, dict[str, int]] = {
        "as taken": {},
        "parts not turned": {"turn": 0},
        "parts turned": {"turn": taken.base_parts},
        "16 units": {"units": 16},
        "32 units": {"units": 32},
        "64 rows": {"rows": 64},
        "128 rows": {"rows": 128, "base_stages": 4, "code_stages": 2},
        "256 rows": {"rows": 256, "warps": 8, "base_parts": 4},
        "half the parts of codes": {"code_parts": (taken.code_parts + 1) // 2},
        "twice the parts of codes": {"code_parts": 2 * taken.code_parts},
        "columns in 2": {"base_parts": 2},
        "columns in 4": {"base_parts": 4},
        "columns in 6": {"base_parts": 6},
        "columns in 8": {"base_parts": 8},
    }
    if taken.code_parts:
        for height, parts in ((128, 4), (256, 8)) if groups == 1 else ():
            both = {"rows": height, "code_parts": 0, "warps": 8, "turn": 0, "base_stages": 4}
            changes[f"W₀ and codes in a program, {height} rows"] = {**both, "base_parts": parts}
    else:
        apart = {"rows": 128, "base_parts": 2, "code_parts": 4, "warps": 4, "turn": 2}
        changes |= {"codes apart": apart, "codes apart, columns in 4": {**apart, "base_parts": 4}}
        changes["4 warps"] = {"warps": 4}
    seen = set()
    for name, change in changes.items():
        form = taken._replace(**change)
        if form not in seen:
            seen.add(form)
            yield name, form


def compile_forms(bases: list[torch.Tensor], device: str, number: int) -> None:
    """Run the forms for one shape, untimed."""
    time_forms(bases, device, lambda *_: 0.0, SHAPES[number : number + 1])


def time_forms(
    bases: list[torch.Tensor],
    device: str,
    clock: Callable[..., float] = timed,
    shapes: tuple[tuple[int, int, int, int, float], ...] = SHAPES,
) -> None:
    """Each form's time beside one model, and how far its answers are from those of the first."""
    for rows, bits, groups, every, goal in shapes:
        by_width = inputs(rows, bases)
        given = [by_width[base.shape[1]] for base in bases]
        alone = clock(partial(_one_model, given, bases), device, 5)
        made = stacks(bases, bits, rows, groups, every)
        slots = Selection.of(range(rows), bases[0].device).slots(
            rows, tuple(group.tasks for group in made[0].groups), bases[0].device
        )
        print(f"{step_name(rows, bits, groups, every)}: goal {goal:.2f}", flush=True)
        step = partial(_step, made, bases, given, slots)
        wanted: list[torch.Tensor] = []
        for name, form in forms_of(rows, bits, every, groups):
            try:
                found = step(form)
                wanted = wanted or found
                error = max(map(_error, found, wanted))
                taken = clock(partial(step, form), device, 5) / alone if alone else 0.0
            except Exception as problem:  # a form that a device has no room for is no answer
                print(f"  {name}: {type(problem).__name__}: {str(problem)[:80]}")
                continue
            verdict = "ok" if error < 2e-2 else "WRONG"
            print(f"  {name}: {taken:.2f} × one model, {error:.0e} {verdict}", flush=True)


def _one_model(given: list[torch.Tensor], bases: list[torch.Tensor]) -> list[torch.Tensor]:
    return [F.linear(x, base) for x, base in zip(given, bases, strict=True)]


def _step(
    made: list[Stack],
    bases: list[torch.Tensor],
    given: list[torch.Tensor],
    slots: Slots,
    form: kernels.Form,
) -> list[torch.Tensor]:
    return [
        kernels.mixed_product(
            x, base, one.stored, one.across, one.down, one.scales, one.residues, slots,
            bits=one.bits, every=one.every, form=form,
        )
        for one, base, x in zip(made, bases, given, strict=True)
    ]  # fmt: skip


def _error(found: torch.Tensor, wanted: Any) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
