"""Steps of a mixed batch on a GPU, checked and timed: `gpu.py` runs this."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from gpu_data import group, inputs, plain, stacks, weights
from gpu_figures import FORMS, ROWS, note, step_name, timed, traffic
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.batch.selection import Selection
from randes_cli.live.weights.group import Group
from randes_cli.live.weights.held import made_dense


def check_steps(device: str, dtype: torch.dtype, bits: int) -> None:
    """A step by kernel is near that of plain torch."""
    forms = ((16, 1, 1), (16, 8, 1), (64, 8, 2))
    for shape, (rows, groups, every) in product(((96, 256), (80, 416)), forms):
        (base,) = weights([shape], device, dtype)
        (one,) = stacks([base], bits, rows, groups, every)
        x = torch.randn(rows, shape[1], device=device, dtype=dtype)
        found = one.linear(x, base, Selection.of(range(rows), base.device))
        assert found is not None
        wanted = plain(x, base, one.groups)
        error = float((found.float() - wanted).abs().max() / wanted.abs().max())
        verdict = "ok" if error < 2e-2 else "WRONG"
        print(
            f"check step  {bits:2} bits, {shape}, {rows} rows, {groups} groups of 1/{every}: "
            f"{error:.1e} {verdict}"
        )
        assert error < 2e-2


def compile_steps(bases: list[torch.Tensor], device: str) -> None:
    """What `time_steps` times, for the sake of its kernels."""

    def untimed(step: Callable[[], None], *_: Any) -> float:
        step()
        return 1.0

    time_steps(bases, device, untimed)


def time_steps(bases: list[torch.Tensor], device: str, clock: Callable[..., float] = timed) -> None:
    """A decoding step of all matrices, beside one model's."""
    for rows in ROWS:
        given = inputs(rows, bases)

        def one(given: Any = given) -> None:
            for base in bases:
                F.linear(given[base.shape[1]], base)

        alone = clock(one, device)
        print(f"{rows} rows, one model: {alone:.2f} ms")
        choice = Selection.of(range(rows), bases[0].device)
        for bits, groups, every in FORMS:
            made = stacks(bases, bits, rows, groups, every)

            def step(made: Any = made, given: Any = given, choice: Selection = choice) -> None:
                for found, base in zip(made, bases, strict=True):
                    found.linear(given[base.shape[1]], base, choice)

            taken = clock(step, device, 5)
            name = step_name(rows, bits, groups, every)
            note(name, taken / alone)
            print(
                f"{name}: {taken:.2f} ms, {taken / alone:.2f} × one model; "
                f"traffic {traffic(bits, groups, every):.2f}"
            )
            del made


def time_prefill(bases: list[torch.Tensor], device: str) -> None:
    """2,048 tokens: two products for one, codes unpacked once."""
    some = bases[:7]
    tokens = 2048 if device == "cuda" else 128
    given = inputs(tokens, some)
    alone = timed(lambda: [F.linear(given[b.shape[1]], b) for b in some], device)
    index = torch.zeros(tokens, dtype=torch.long, device=device)
    for way in ("codes", "dense"):
        groups = []
        for base in some:
            made = group((base.shape[0], base.shape[1]), 2, range(1), 1, base)
            held = made.held if way == "codes" else made_dense(made.held, base.dtype)
            groups.append(Group(held, made.down, made.across, made.tasks, True))

        def run(groups: list[Group] = groups) -> None:
            for one, base in zip(groups, some, strict=True):
                x = given[base.shape[1]]
                F.linear(x, base) + one.product(x, index)

        print(f"prefill, {way}: {timed(run, device) / alone:.2f} × one model")
