"""Small models from a bank on a device, checked and timed: `gpu.py` runs this."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import randes_cli
from live import TASKS, make_bank

ROWS = (*TASKS[:3], None)


def check_models(device: str) -> None:
    """Swaps have the bits of a CPU's, and each row is answered as its own task answers it."""
    with tempfile.TemporaryDirectory() as folder:
        for bits in (2, 8, 16) if device == "cuda" else (2,):
            place = Path(folder) / str(bits)
            place.mkdir()
            bank = _bank(place, device, 2, 128, bits)
            _check_pool(bank, device)
            for hold in ("codes", "dense"):
                _check_rows(bank, device, hold)
            print(f"check models  {bits:2} bits: ok", flush=True)


def _bank(folder: Path, device: str, layers: int, width: int, bits: int) -> Path:
    """On a device of this size; a rehearsal's is tiny."""
    return (
        make_bank(folder, layers, width, bits)
        if device == "cuda"
        else make_bank(folder, 1, 64, bits, 64)
    )


def _check_pool(bank: Path, device: str) -> None:
    model: Any = randes_cli.transformers.from_bank(bank).to(device)
    with randes_cli.Pool(bank, model, resident=True) as pool:
        for task in (*TASKS[:3], TASKS[0]):
            stream = torch.cuda.Stream() if device == "cuda" else None
            with torch.cuda.stream(stream), pool.use(task):
                wanted = randes_cli.transformers.from_bank(bank, task).state_dict()
                for name, found in model.state_dict().items():
                    assert torch.equal(found.cpu(), wanted[name]), (task, name)


@torch.inference_mode()
def _check_rows(bank: Path, device: str, hold: str) -> None:
    most = 8000 if device == "cuda" else 64
    ids = torch.randint(3, most, (len(ROWS), 12), device=device)
    for dtype in (torch.float32, torch.float16):
        given: Any = {"dtype": dtype}
        model = randes_cli.transformers.from_bank(bank, **given).to(device)
        mixed = randes_cli.attach(model, bank, hold=hold)
        whole = mixed(input_ids=ids, adapter_names=ROWS).logits
        last = mixed(input_ids=ids, adapter_names=ROWS, logits_to_keep=1).logits
        for row, task in enumerate(ROWS):
            alone: Any = randes_cli.transformers.from_bank(bank, task, **given).to(device)
            wanted = alone(input_ids=ids[row : row + 1]).logits[0].float()
            for found, right in ((whole[row], wanted), (last[row], wanted[-1:])):
                error = (found.float() - right).abs().max() / right.abs().max()
                assert error < (1e-3 if dtype == torch.float32 else 3e-2), (task, hold, error)


def _seconds(run: Callable[[int], Any], device: str, rounds: int = 9) -> float:
    taken = []
    for turn in range(rounds + 2):
        start = time.perf_counter()
        run(turn)
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken[2:])


@torch.inference_mode()
def time_models(device: str) -> None:
    """`Pool` beside a copy, and a step of eight tasks beside one model, as Python runs them."""
    with tempfile.TemporaryDirectory() as folder:
        bank = _bank(Path(folder), device, 8, 1024, 2)
        given: Any = {"dtype": torch.bfloat16}
        model: Any = randes_cli.transformers.from_bank(bank, **given).to(device)
        others = [torch.empty_like(p) for p in model.parameters()]

        def copy(_: int) -> None:
            for one, parameter in zip(others, model.parameters(), strict=True):
                one.copy_(parameter)

        print(f"copy of a model: {1000 * _seconds(copy, device):.2f} ms")
        with randes_cli.Pool(bank, model) as pool:

            def swap(turn: int) -> None:
                with pool.use(TASKS[turn % 2]):
                    pass

            print(f"Pool.use: {1000 * _seconds(swap, device):.2f} ms", flush=True)
        ids = torch.randint(3, 64, (8, 1), device=device)
        alone = _seconds(lambda _: model(input_ids=ids), device)
        for hold in ("codes", "dense"):
            mixed = randes_cli.attach(model, bank, hold=hold)
            taken = _seconds(lambda _, m=mixed: m(input_ids=ids, adapter_names=TASKS), device)
            print(f"a step of eight tasks, {hold}: {taken / alone:.2f} × one model", flush=True)
            mixed.detach()
