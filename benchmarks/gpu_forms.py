"""Forms of a product beside one another, for the shapes that missed their goal (`gpu.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from gpu_data import inputs, shapes, stacks, weights
from gpu_figures import step_name, timed
from torch.nn import functional as F  # noqa: N812

from randes_cli.live import kernels
from randes_cli.live.forms import Form, base_form, code_form, over
from randes_cli.live.selection import Selection, Slots
from randes_cli.live.stack import Stack

#: Rows, bits, groups, which share of the elements a group has, and the goal beside one model.
SHAPES = (
    (16, 2, 8, 1, 2.50),
    (64, 2, 1, 1, 1.41),
    (64, 2, 8, 8, 1.41),
    (64, 2, 8, 1, 2.50),
    (64, 1, 1, 1, 1.33),
    (64, 4, 1, 1, 1.56),
    (64, 8, 1, 1, 1.88),
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


def larger(form: Form, height: int, what: str) -> Iterator[tuple[str, Form]]:
    """Forms in tiles of more rows, in as many programs as an H200 has multiprocessors, or twice.

    Each tile reads all inputs: with 64 rows of x, tiles of 64 read as many bytes of them as of W₀.
    """
    made = {
        Form(rows, columns, max(1, 132 * waves // over(height, rows)), form.stages, warps)
        for rows, columns, waves, warps in product(
            (128, 256), (form.columns // 2, form.columns), (1, 2), (4, 8)
        )
    }
    for other in sorted(made - {form}):
        cut = f"{other.rows} × {other.columns} in {other.parts} parts"
        yield f"{what}, {cut}, {other.warps} warps", other


def forms_of(
    shape: tuple[int, int], rows: int, bits: int, every: int, groups: int
) -> Iterator[tuple[str, tuple[Form, Form]]]:
    """What `kernels` takes for a matrix, others that differ in one thing, and larger ones."""
    longest = rows // groups
    base, codes = base_form(shape, rows), code_form(shape, bits, every, groups, longest)
    yield "as taken", (base, codes)
    yield from ((name, (form, codes)) for name, form in others(base, "W₀"))
    yield from ((name, (base, form)) for name, form in others(codes, "codes"))
    if rows > 16:
        yield from ((name, (form, codes)) for name, form in larger(base, shape[0], "W₀"))
    if longest > 16:
        yield from ((name, (base, form)) for name, form in larger(codes, shape[0], "codes"))


def compile_forms(device: str, dtype: torch.dtype, number: int) -> None:
    """Run the forms of one kind of product and of one shape of matrix, untimed."""
    which, kind = divmod(number, len(SHAPES))
    bases = weights(sorted({*shapes(device)})[which : which + 1], device, dtype)
    time_forms(bases, device, lambda *_: 0.0, SHAPES[kind : kind + 1])


def time_all_forms(device: str, dtype: torch.dtype) -> None:
    """`time_forms` of each shape of matrix, eight of them in turn."""
    for shape in sorted({*shapes(device)}):
        time_forms(weights([shape] * (8 if device == "cuda" else 1), device, dtype), device)


def time_forms(
    bases: list[torch.Tensor],
    device: str,
    clock: Callable[..., float] = timed,
    kinds: tuple[tuple[int, int, int, int, float], ...] = SHAPES,
) -> None:
    """Of matrices of one shape: the form that is taken beside one model, and the fastest others.

    A form whose answers are far from those of the first is told as wrong.
    """
    rows_and_columns = (bases[0].shape[0], bases[0].shape[1])
    for rows, bits, groups, every, goal in kinds:
        x = inputs(rows, bases)[rows_and_columns[1]]
        alone = clock(partial(_one_model, x, bases), device, 5)
        made = stacks(bases, bits, rows, groups, every)
        tasks = tuple(group.tasks for group in made[0].groups)
        slots = Selection.of(range(rows), x.device).slots(rows, tasks, x.device)
        step = partial(_step, made, bases, x, slots)
        wanted: list[torch.Tensor] = []
        found: list[tuple[float, str]] = []
        for name, forms in forms_of(rows_and_columns, rows, bits, every, groups):
            try:
                answers = step(forms)
                wanted = wanted or answers
                right = max(map(_error, answers, wanted)) < 2e-2
                taken = clock(partial(step, forms), device, 5) / alone if alone else 0.0
            except Exception as problem:  # a form that a device has no room for is no answer
                print(f"  {name}: {type(problem).__name__}: {str(problem)[:80]}")
                continue
            found.append((taken, f"{name}{'' if right else ' WRONG'}"))
        first, others = found[0], sorted(found[1:])
        told = ", ".join(f"{taken:.2f} {name}" for taken, name in others[:4])
        wrong = sum("WRONG" in name for _, name in others)
        print(
            f"{rows_and_columns}, {step_name(rows, bits, groups, every)}: {first[0]:.2f} (goal "
            f"{goal:.2f}); {told}; {wrong} of {len(found)} wrong",
            flush=True,
        )


def _one_model(x: torch.Tensor, bases: list[torch.Tensor]) -> list[torch.Tensor]:
    return [F.linear(x, base) for base in bases]


def _step(
    made: list[Stack],
    bases: list[torch.Tensor],
    x: torch.Tensor,
    slots: Slots,
    forms: tuple[Form, Form],
) -> list[torch.Tensor]:
    return [
        kernels.mixed_product(
            x, base, one.stored, one.across, one.down, one.scales, one.residues, slots,
            bits=one.bits, every=one.every, forms=forms,
        )
        for one, base in zip(made, bases, strict=True)
    ]  # fmt: skip


def _error(found: torch.Tensor, wanted: Any) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
