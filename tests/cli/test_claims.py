"""What commands say of random banks, beside the truth: read from the files by the stock library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints import State, same_bits, save
from tests.cli.conftest import Result
from tests.cli.drawn import Drawing

Randes = Callable[..., Result]
#: What a dry run says of a task, whatever its sample shows.
FORESEEN = ("name", "index", "group", "seed", "missing", "side_files", "left_out")


def size(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def is_exact(name: str, value: torch.Tensor, base: State) -> bool:
    """Whether a tensor can only come back as it was: nothing of it is superposed."""
    other = base.get(name)
    if other is None:
        return True
    return not value.is_floating_point() or value.numel() < 2 or same_bits(value, other)


def turned(name: str, back: State, base: State) -> bool:
    """Whether a tensor that is positive throughout in the base has a negative value."""
    value, other = back[name], base.get(name)
    if other is None or other.shape != value.shape or not value.is_floating_point():
        return False
    return bool((other.double() > 0).all() and (value.double() < 0).any())


class Claims:
    """A bank in a folder, the tasks that it should hold, and what was said of them."""

    def __init__(self, folder: Path, randes: Randes, base: State) -> None:
        self.folder, self.randes, self.base = folder, randes, base
        self.bank, self.tasks = folder / "m.randes", dict[str, State]()
        self.kept: dict[str, dict[str, str]] = {}

    def change(self, *words: object) -> Any:
        """Do what the words say, dry and in earnest; None where both refuse alike."""
        before = self.bank.read_bytes() if self.bank.exists() else None
        dry, real = (self.randes(*words, "--json", *more) for more in (["--dry-run"], []))
        assert (dry.code == 0) == (real.code == 0), (words, dry.err, real.err)
        if real.code:
            assert real.code in (2, 3, 4), (words, real.err)
            assert len(real.err.strip().splitlines()) == 1, real.err
            assert before == (self.bank.read_bytes() if self.bank.exists() else None)
            return None
        if "tasks" in real.json:
            for left, right in zip(dry.json["tasks"], real.json["tasks"], strict=True):
                assert [left[key] for key in FORESEEN] == [right[key] for key in FORESEEN]
        else:
            assert dry.json["bytes_after"] == pytest.approx(real.json["bytes_after"], abs=4000)
        self.kept |= real.json["kept_exactly"]
        return real.json

    def check(self) -> None:
        """Compare what is said of the bank, and what comes out, with the checkpoints."""
        report = self.randes("inspect", self.bank, "--json").json
        assert report["bank_bytes"] == self.bank.stat().st_size
        assert report["base_bytes"] == size(self.base)
        assert report["separate_bytes"] == sum(map(size, self.tasks.values()))
        assert {task["name"] for task in report["tasks"]} == set(self.tasks)
        out = self.folder / "out"
        words = ["--all", "-o", f"{out}/", "--saturate", "--force", "--json"]
        unpacked = self.randes("unpack", self.bank, *words).json["tasks"] if self.tasks else []
        for task in unpacked:
            said = next(one for one in report["tasks"] if one["name"] == task["task"])
            self.check_task(task, said)

    def check_task(self, task: dict[str, Any], said: dict[str, Any]) -> None:
        name, back = task["task"], load_file(task["files"][0])
        original = self.tasks[name]
        assert set(back) == set(original)
        for key, value in original.items():
            found = back[key]
            assert (found.dtype, found.shape) == (value.dtype, value.shape), (name, key)
            if is_exact(key, value, self.base) or key in self.kept[name]:
                assert same_bits(value, found), (name, key)
            assert not (found.double().isnan().any() and not value.double().isnan().any())
            changed = not same_bits(value, found)
            assert (key in task["turned"]) == (changed and turned(key, back, self.base)), key
        if not any(key.startswith("tied.") for key in {**original, **self.base}):
            parts = said["superposed"], said["own"], said["unchanged"]
            assert sum(parts) == len(original) and task["superposed"] == parts[0]
            assert said["missing"] == len(self.base.keys() - original.keys())


@pytest.mark.parametrize("seed", range(24))
def test_what_is_said_of_a_random_bank_is_so(seed: int, tmp_path: Path, randes: Randes) -> None:
    drawing = Drawing(seed)
    rng, base = drawing.rng, drawing.base()
    source = save(base, tmp_path / "base.safetensors")
    states = {f"t{number}": drawing.task(base, number) for number in range(rng.randint(1, 4))}
    files = {name: save(state, tmp_path / f"{name}.safetensors") for name, state in states.items()}
    claims = Claims(tmp_path, randes, base)
    first = rng.sample(list(states), rng.randint(1, len(states)))
    words = ["pack", source, *(files[name] for name in first), "-o", claims.bank]
    report = claims.change(*words, *drawing.words())
    if report is None:
        return
    claims.tasks = {name: states[name] for name in first}
    assert report["bank_bytes"] == claims.bank.stat().st_size
    claims.check()
    for _ in range(3):
        name = rng.choice(list(states))
        if name not in claims.tasks:
            made = claims.change("add", claims.bank, files[name])
        elif rng.random() < 0.5:
            made = claims.change("add", claims.bank, files[name], "--replace")
        else:
            forget = ["--forget"] * (rng.random() < 0.3)
            made = claims.change("remove", claims.bank, "-t", name, *forget)
            if made is not None:
                del claims.tasks[name]
                continue
        if made is not None:
            claims.tasks[name] = states[name]
            claims.check()
