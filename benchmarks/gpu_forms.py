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
from randes_cli.live.forms import Form, base_form, code_form
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


def others(form: Form, what: str) -> Iterator[tuple[str, Form]]:
    """Forms that differ from it in one thing."""
    for name, values in (
        ("rows", (64, 128)),
        ("columns", (32, 64, 128)),
        ("parts", (1, 2, 3, 4, 6, 8)),
        ("stages", (2, 3, 4, 5, 6)),
        ("warps", (2, 4, 8)),
    ):
        for value in values:
            if value != getattr(form, name):
                yield f"{what}, {value} {name}", form._replace(**{name: value})


def forms_of(
    rows: int, bits: int, every: int, groups: int
) -> Iterator[tuple[str, tuple[Form, Form]]]:
    """What `kernels` takes for 4096 × 4096, and others that differ from it in one thing."""
    base = base_form((4096, 4096), rows)
    codes = code_form((4096, 4096), bits, every, groups, rows // groups)
    yield "as taken", (base, codes)
    yield from ((name, (form, codes)) for name, form in others(base, "W₀"))
    yield from ((name, (base, form)) for name, form in others(codes, "codes"))


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
        for name, forms in forms_of(rows, bits, every, groups):
            try:
                found = step(forms)
                wanted = wanted or found
                error = max(map(_error, found, wanted))
                taken = clock(partial(step, forms), device, 5) / alone if alone else 0.0
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
    forms: tuple[Form, Form],
) -> list[torch.Tensor]:
    return [
        kernels.mixed_product(
            x, base, one.stored, one.across, one.down, one.scales, one.residues, slots,
            bits=one.bits, every=one.every, forms=forms,
        )
        for one, base, x in zip(made, bases, given, strict=True)
    ]  # fmt: skip


def _error(found: torch.Tensor, wanted: Any) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
