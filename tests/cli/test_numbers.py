"""Every number that is told of random banks beside the truth, and all commands tell the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Result
from tests.cli.truth import (
    Came,
    Family,
    bytes_of,
    cosine,
    file_bytes,
    pair_cosine,
    size,
)

Randes = Callable[..., Result]
Json = dict[str, Any]
#: What only the command that read a task says of it.
READ = {"read_bytes", "notes", "left_out", "side_files"}
#: Predicted less true cosine, at the most: of what is measured, and what is said to be approximate.
MEASURED, APPROXIMATE, TOO_LITTLE = 0.08, 0.25, 0.5


def differing(one: Json, two: Json, leave: set[str]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, numbers by more than a millionth."""
    return {
        key: (value, two[key])
        for key, value in one.items()
        if key not in leave
        and value != (pytest.approx(two[key], rel=1e-6) if _is_number(value) else two[key])
    }


def _is_number(value: object) -> bool:
    return isinstance(value, float)


class Numbers:
    """A bank, what it should hold, and what is said of it."""

    def __init__(self, family: Family, randes: Randes, bank: Path) -> None:
        self.family, self.randes, self.bank = family, randes, bank
        self.held: dict[str, str] = {}
        self.exact: dict[str, set[str]] = {}

    def said(self, *words: object) -> Any:
        result = self.randes(*words, "--json")
        assert result.code in (0, 1), (words, result.err)
        return result.json

    def change(self, *words: object) -> Any:
        """Do it dry and in earnest; None where both refuse."""
        dry, real = (self.randes(*words, "--json", *more) for more in (["--dry-run"], []))
        assert (dry.code == 0) == (real.code == 0), (words, dry.err, real.err)
        if real.code:
            return None
        key = "bank_bytes" if "bank_bytes" in real.json else "bytes_after"
        assert dry.json[key] == pytest.approx(real.json[key], abs=16)  # digits of λ
        assert real.json[key] == file_bytes(self.bank)
        assert dry.json.get("room") == real.json.get("room")
        self.exact |= {n: set(kept) for n, kept in real.json.get("kept_exactly", {}).items()}
        if words[0] != "seal":  # what sealing takes away is measured while it is done
            key = "tasks" if "tasks" in real.json else "after"
            for told, made in zip(dry.json[key], real.json[key], strict=True):
                assert not differing(told, made, {"approximate"}), words
        return real.json

    def check(self, reported: Sequence[Json]) -> None:
        """Compare what every command says of the bank."""
        report = self.said("inspect", self.bank)
        tasks = {task["name"]: task for task in report["tasks"]}
        assert tasks.keys() == self.held.keys()
        for task in reported:
            assert not differing(task, tasks[task["name"]], READ)
        self.check_bytes(report)
        out = ["--all", "-o", f"{self.bank.parent / 'out'}/", "--saturate", "--force"]
        unpacked = {one["task"]: one for one in self.said("unpack", self.bank, *out)["tasks"]}
        originals = [
            word for name, file in self.held.items() for word in ("--against", f"{name}={file}")
        ]
        verified = self.said("verify", self.bank, *originals)
        assert verified["lost"] == {n: t["lost"] for n, t in tasks.items() if t["lost"]}
        measured = {one["task"]: one for one in verified["against"]}
        came = {}
        for name, detail in zip(tasks, report["details"], strict=True):
            back = Came(
                self.state(name),
                self.family.base,
                self.exact.get(name, set()),
                unpacked[name]["files"][0],
            )
            came[name] = back
            self.check_counts(tasks[name], detail, unpacked[name], measured[name])
            self.check_task(tasks[name], detail, back)
            self.check_measured(tasks[name], measured[name], back)
        if not report["estimated"]:
            self.check_pairs(report, came)
        self.check_choices(report)

    def state(self, name: str) -> Any:
        return self.family.states[Path(self.held[name]).stem]

    def check_bytes(self, report: Json) -> None:
        whole = file_bytes(self.bank)
        separate = sum(size(self.state(name)) for name in self.held)
        assert report["bank_bytes"] == whole
        assert report["base_bytes"] == size(self.family.base)
        assert report["separate_bytes"] == separate
        assert report["ratio_to_base"] == pytest.approx(whole / size(self.family.base))
        assert report["ratio_to_separate"] == pytest.approx(whole / separate)
        assert report["sum_bytes"] == bytes_of(self.bank, "sum", "scale")
        assert report["own_bytes"] == bytes_of(self.bank, "own")

    def check_counts(self, task: Json, detail: Json, unpacked: Json, measured: Json) -> None:
        state, base = self.state(task["name"]), self.family.base
        assert sum(task[key] for key in ("superposed", "own", "unchanged")) == len(state)
        assert task["missing"] == len(base.keys() - state.keys())
        assert unpacked["superposed"] == task["superposed"] == len(measured["tensors"])
        assert unpacked["coefficient"] == task["coefficient"]
        assert unpacked["bytes"] == detail["checkpoint_bytes"] == size(state)
        assert measured["exact"] == len(state) - task["superposed"] and measured["original"]

    def check_task(self, task: Json, detail: Json, back: Came) -> None:
        assert len(back.names) == task["superposed"]
        assert detail["norm"] == pytest.approx(back.norm, rel=0.05)
        off = task["predicted_cosine"] - back.cosine
        assert -TOO_LITTLE < off < (APPROXIMATE if task["approximate"] else MEASURED), task
        if task["kept"] is not None:
            kept = [task["kept_low"], task["kept"], task["kept_high"]]
            assert kept == sorted(kept) and kept[0] >= 0 and kept[2] <= 1
            assert not (task["lost"].startswith("its delta") and task["kept"])
        if not task["approximate"] and self.family.dtype.itemsize > 2:
            assert back.error < 1.2 * detail["predicted_error"] + 0.05

    def check_measured(self, task: Json, measured: Json, back: Came) -> None:
        assert measured["cosine"] == pytest.approx(back.cosine, abs=1e-3)
        assert measured["predicted"] == pytest.approx(task["predicted_cosine"], abs=1e-9)
        if back.names:
            assert measured["error"] == pytest.approx(back.error, rel=1e-3, abs=1e-4)
        for one in measured["tensors"]:
            true = cosine(back.true[one["name"]], back.found[one["name"]])
            assert one["cosine"] == pytest.approx(true, abs=1e-3)

    def check_pairs(self, report: Json, came: Mapping[str, Came]) -> None:
        names = [task["name"] for task in report["tasks"]]
        before = np.array(report["cosine_before"])
        for row, one in enumerate(names):
            for column, two in enumerate(names):
                true = pair_cosine(came[one], came[two])
                assert before[row, column] == pytest.approx(true, abs=0.02), (one, two)
        apart = np.abs(before) - 2 * np.eye(len(names))
        for row, detail in enumerate(report["details"]):
            if len(names) > 1:
                assert apart[row, names.index(detail["nearest"])] == apart[row].max()

    def check_choices(self, report: Json) -> None:
        for one in report["alternatives"]:
            if one["present"]:
                assert one["bank_bytes"] == file_bytes(self.bank) and one["exact"]
                for key in ("predicted_cosine", "kept"):
                    told = [task[key] for task in report["tasks"]]
                    known = all(value is not None for value in told)
                    assert not known or one[key] == pytest.approx(np.mean(told), abs=1e-6)


def another_step(numbers: Numbers, rng: np.random.Generator) -> None:
    """Add, replace, remove, seal or tune, and compare again."""
    bank, folder, held = numbers.bank, numbers.family.folder, numbers.held
    kind = str(rng.choice(["add", "replace", "remove", "seal", "tune"]))
    name = str(rng.choice(list(held)))
    more = folder / "more.safetensors"
    if kind == "add":
        made, name = numbers.change("add", bank, more), "more"
    elif kind == "replace":
        made = numbers.change("add", bank, f"{name}={more}", "--replace")
    elif kind == "remove" and len(held) > 1:
        words = ["-t", name, *["--forget"] * (rng.random() < 0.4)]
        made = numbers.change("remove", bank, *words)
    elif kind == "seal":
        made = numbers.change("seal", bank, "--in-place", "--bits", rng.choice([1, 2, 3, 8]))
    else:
        script = "sh -c 'echo 0.5' {checkpoint}"
        assert numbers.randes("tune", bank, "--evaluate", script, "--grid", "0.3,0.7").code == 0
        made = {"after": []}
    if made is None:
        return
    if kind in ("add", "replace"):
        held[name] = str(more)
    elif kind == "remove" and len(held) > 1:
        del held[name]
    numbers.check(made["after"])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_of_a_random_bank_is_true(seed: int, tmp_path: Path, randes: Randes) -> None:
    rng = np.random.default_rng(seed)
    family = Family(rng, tmp_path)
    files = [family.task(f"t{number}") for number in range(int(rng.integers(1, 6)))]
    family.task("more")
    numbers = Numbers(family, randes, tmp_path / "m.randes")
    made = numbers.change("pack", family.source, *files, "-o", numbers.bank, *family.options())
    assert made is not None
    numbers.held = {file.stem: str(file) for file in files}
    numbers.check(made["tasks"])
    assert numbers.said("inspect", numbers.bank)["saving"] == made["saving"]
    another_step(numbers, rng)
