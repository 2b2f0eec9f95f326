"""Forms of a product beside one another, for the shapes that missed their goal (`gpu.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_advice import Found, Taken, advice
from gpu_data import inputs, shapes, stacks, weights
from gpu_figures import step_name, timed
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.batch.selection import Selection, Slots
from randes_cli.live.kernels import launch as kernels
from randes_cli.live.kernels.forms import Form, Order, base_form, code_form, shape_kind
from randes_cli.live.weights.stack import Stack

#: Rows, bits, groups, which share of the elements a group has, and the goal beside one model.
SHAPES = (
    (16, 2, 1, 1, 1.41),
    (16, 2, 8, 1, 2.50),
    (16, 1, 8, 1, 1.88),
    (64, 2, 1, 1, 1.41),
    (64, 1, 1, 1, 1.33),
    (64, 4, 1, 1, 1.56),
    (64, 8, 1, 1, 1.88),
    (64, 2, 8, 8, 1.41),
    (64, 2, 8, 1, 2.50),
    (64, 1, 8, 1, 1.88),
)
#: Each is tried with all forms: W₀ first, codes and W₀ asked for before programs wait for them.
ORDERS = (
    Order(),
    Order(True),
    Order(False, 0, True),
    Order(True, 0, True),
    Order(False, 1024, True),
    Order(True, 1024, True),
    Order(False, 2048, False),
)


def bases(shape: tuple[int, int], rows: int) -> list[Form]:
    """Forms of W₀: what is taken, and others that leave more room, or read inputs half as often."""
    taken, parts = base_form(shape, rows), 3 if shape_kind(shape) == 1 else 4
    least = 3 if shape_kind(shape) == 1 else 8  # where tiles have 256 rows: a program for each
    few = (taken._replace(parts=1, stages=4), Form(64, 64, 2, 4, 4))
    many = (
        Form(128, 64, parts, 4, 8),
        Form(128, 64, parts, 4, 4),
        Form(128, 128, parts, 3, 4),
        Form(256, 64, least, 3, 8),
    )
    return list(dict.fromkeys((taken, *(few if rows <= 16 else many))))


def codes(shape: tuple[int, int], rows: int, bits: int, every: int, groups: int) -> list[Form]:
    """The same of codes."""
    taken = code_form(shape, bits, every, groups, rows // groups)
    parts = 3 if shape_kind(shape) == 1 else 4
    if groups > 1:
        others = [taken._replace(parts=1), taken._replace(rows=128, warps=2 * taken.warps)]
    elif rows > 16:
        others = [Form(128, 32 if bits == 1 else 64, parts, stages, 8) for stages in (2, 3)]
        others.append(taken._replace(parts=2 * taken.parts, stages=2))
    else:
        others = [taken._replace(parts=max(1, taken.parts // 2))]
    return list(dict.fromkeys((taken, *others)))


def forms_of(
    shape: tuple[int, int], rows: int, bits: int, every: int, groups: int
) -> Iterator[Taken]:
    """What `kernels` takes for a matrix, and others."""
    yield from (
        (base, code, order)
        for base in bases(shape, rows)
        for code in codes(shape, rows, bits, every, groups)
        for order in ORDERS
    )


def compile_forms(device: str, dtype: torch.dtype, number: int) -> None:
    """Run the forms of one kind of product and of one shape of matrix, untimed."""
    which, kind = divmod(number, len(SHAPES))
    matrices = weights(sorted({*shapes(device)})[which : which + 1], device, dtype)
    time_forms(matrices, device, lambda *_: 0.0, SHAPES[kind : kind + 1])


def time_all_forms(device: str, dtype: torch.dtype) -> None:
    """`time_forms` of each shape of matrix, eight of them in turn; then what tables should say."""
    found: Found = {}
    for shape in sorted({*shapes(device)}):
        matrices = weights([shape] * (8 if device == "cuda" else 1), device, dtype)
        found |= time_forms(matrices, device, kinds=SHAPES if device == "cuda" else SHAPES[1:4:2])
    print("\n".join(advice(found, shapes(device))), flush=True)


def time_forms(
    matrices: list[torch.Tensor],
    device: str,
    clock: Callable[..., float] = timed,
    kinds: tuple[tuple[int, int, int, int, float], ...] = SHAPES,
) -> Found:
    """Of matrices of one shape: what is taken beside one model, and the fastest others.

    What answers far from the first is told as wrong, and left out.
    """
    shape, made = (matrices[0].shape[0], matrices[0].shape[1]), Found()
    for rows, bits, groups, every, goal in kinds:
        x = inputs(rows, matrices)[shape[1]]
        alone = clock(partial(_one_model, x, matrices), device, 5)
        held = stacks(matrices, bits, rows, groups, every)
        tasks = tuple(group.tasks for group in held[0].groups)
        slots = Selection.of(range(rows), x.device).slots(rows, tasks, x.device)
        step = partial(_step, held, matrices, x, slots)
        first, *others = forms_of(shape, rows, bits, every, groups)
        others = others if device == "cuda" else others[:2]
        wanted, found = step(first), dict[Taken, float]()
        for taken in (first, *others):
            try:
                assert max(map(_error, step(taken), wanted)) < 2e-2, "WRONG"
                found[taken] = clock(partial(step, taken), device, 5) / alone if alone else 0.0
            except Exception as problem:  # a form that a device has no room for is no answer
                print(f"  {_told(taken)}: {type(problem).__name__}: {str(problem)[:80]}")
        best = sorted(found, key=lambda one: found[one])[:3]
        told = [f"{found[one]:.2f} {_told(one)}" for one in (first, *best)]
        print(
            f"{shape}, {step_name(rows, bits, groups, every)}, goal {goal:.2f}: {'; '.join(told)}; "
            f"{len(found)} of {1 + len(others)} right",
            flush=True,
        )
        made[shape, (rows, bits, groups, every, goal)] = found
    return made


def _told(taken: Taken) -> str:
    return " ".join(str((*part,)).replace(" ", "") for part in taken)


def _one_model(x: torch.Tensor, bases: list[torch.Tensor]) -> list[torch.Tensor]:
    return [F.linear(x, base) for base in bases]


def _step(
    made: list[Stack],
    bases: list[torch.Tensor],
    x: torch.Tensor,
    slots: Slots,
    taken: Taken,
) -> list[torch.Tensor]:
    return [
        kernels.mixed_product(
            x, base, one.stored, one.across, one.down, one.scales, one.residues, slots,
            bits=one.bits, every=one.every, forms=taken[:2], order=taken[2],
        )
        for one, base in zip(made, bases, strict=True)
    ]  # fmt: skip


def _error(found: torch.Tensor, wanted: Any) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
