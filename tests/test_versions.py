"""Banks of version 1 are read, and edited, as they were; what version 2 changed.

The banks in `banks/` were written by the last program that wrote version 1; `v1.json` has the
XXH3 digests of what it retrieved from them.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli import (
    Bank,
    PackOptions,
    RunOptions,
    TaskInput,
    Transform,
    UnpackOptions,
    seal,
    unpack,
)
from randes_cli.build.edit import add, remove
from randes_cli.core.shuffle import layer_type
from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import decode, encode
from randes_cli.files.digests import digest
from randes_cli.limits import LIMITS
from randes_cli.ops.verify import verify
from randes_cli.plan import plan_units
from randes_cli.specs import EditOptions, TensorInfo
from randes_cli.stats.coefficients import coefficients
from randes_cli.stats.lengths import bank_lengths, stored_lengths
from tests.checkpoints import Packer, perturbed, random_state, save, stored_sums

FOLDER = Path(__file__).parent / "banks"
EXPECTED = json.loads((FOLDER / "v1.json").read_text("utf-8"))
ONE = RunOptions(threads=1)
MAX_SEED = LIMITS["seed"].most


def retrieved(bank: Path) -> dict[str, dict[str, str]]:
    """The digests of every tensor of every task."""
    with Bank.open(bank, run=ONE) as opened:
        return {
            task: {
                name: digest(value.numpy().tobytes()).hex()
                for name, value in opened.retrieve(task).items()
            }
            for task in opened.tasks
        }


def text_of(bank: Path) -> dict[str, Any]:
    with BankFile(bank) as opened:
        found: dict[str, Any] = json.loads(opened.read_whole("manifest").tobytes())
    return found


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copy(FOLDER / f"{name}.randes", folder / "bank.randes"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bank_of_version_1_returns_what_it_always_did(name: str) -> None:
    assert retrieved(FOLDER / f"{name}.randes") == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_manifest_of_version_1_is_written_as_it_was_read(name: str) -> None:
    with BankFile(FOLDER / f"{name}.randes") as opened:
        text = opened.read_whole("manifest").tobytes()
    assert encode(decode(text)) == text


def test_the_first_example_is_still_the_one_that_version_1_printed() -> None:
    data = (FOLDER / "v1-example.randes").read_bytes()
    assert len(data) == 0x98B
    assert sha256(data).hexdigest().startswith("48c2c7907d5f7436f77523b5709dd75c")


def test_a_default_of_version_1_follows_from_the_norms() -> None:
    with BankFile(FOLDER / "v1-digits.randes") as bank:
        lengths = bank_lengths(bank.manifest, stored_lengths(bank))
        assert coefficients(bank.manifest, lengths) == [0.29, 1.0]
        assert [task.default for task in bank.manifest.tasks] == [None, None]


@pytest.mark.parametrize("name", ["v1-digits", "v1-sealed"])
def test_an_edit_keeps_version_1_and_what_its_tasks_return(name: str, tmp_path: Path) -> None:
    """Numbers in other scripts count as layers there, and adding and removing cancels out."""
    bank = copied(name, tmp_path)
    sums = stored_sums(bank) if name == "v1-digits" else {}
    with Bank.open(bank) as opened:
        state = opened.retrieve(opened.tasks[1])
    third = save(perturbed(state, seed=5), tmp_path / "third.safetensors")
    add(bank, [TaskInput("third", str(third))], EditOptions(), ONE)
    assert text_of(bank)["version"] == 1
    assert all("default" not in task for task in text_of(bank)["tasks"])
    with BankFile(bank) as file:
        assert file.header.metadata["version"] == "1"
        units = plan_units(file.manifest.base.tensors.values(), file.manifest.transform)
    if name == "v1-digits":
        assert ("h.٠.w", "h.١.w", "h.٢.w", "h.3.w") in [unit.names for unit in units]
        assert not torch.equal(stored_sums(bank)["h.٠.w"], sums["h.٠.w"])
    else:
        assert retrieved(bank)["x"] == EXPECTED[name]["x"]
    remove(bank, ["third"], run=ONE)
    assert retrieved(bank) == EXPECTED[name]
    if sums:
        assert all(torch.equal(sums[key], value) for key, value in stored_sums(bank).items())


def test_damaged_norms_of_version_1_leave_no_default_coefficient(tmp_path: Path) -> None:
    bank = copied("v1-digits", tmp_path)
    with BankFile(bank) as opened:
        start = opened.header.starts["stats/norms"]
    with bank.open("r+b") as file:
        file.seek(start)
        file.write(b"\0\0\1")
    with Bank.open(bank) as opened_bank, pytest.raises(BankDamaged, match="say --lambda 1"):
        opened_bank.retrieve("small")
    options = UnpackOptions(force=True)
    forced = unpack(bank, "small", tmp_path / "out.safetensors", options, ONE)[0]
    assert (forced.coefficient, forced.damaged) == (1.0, ("stats/norms",))
    with BankFile(bank) as opened:
        report = verify(opened, ONE)
    assert report.damaged == ("stats/norms",)
    assert sorted(report.hurt) == ["large", "small"]


def test_seeds_of_version_1_may_be_larger(tmp_path: Path) -> None:
    with BankFile(FOLDER / "v1-digits.randes") as bank:
        assert bank.manifest.seed == 2**60 + 1 > MAX_SEED


# What version 2 changed


def test_only_ascii_digits_number_layers() -> None:
    assert layer_type("h.3.w") == layer_type("h.12.w") == "h.*.w"
    assert layer_type("h.٣.w") == "h.٣.w"
    assert layer_type("h.²٣.w", any_digits=True) == "h.²٣.w"
    assert layer_type("h.٣.w", any_digits=True) == "h.*.w"
    base = [TensorInfo(f"h.{number}.w", "F32", (2, 2)) for number in ("0", "1", "٢")]
    units = plan_units(base, Transform.from_preset("srsf"))
    assert [unit.names for unit in units] == [("h.0.w", "h.1.w"), ("h.٢.w",)]


def test_a_seed_beyond_2_53_is_a_usage_error(packer: Packer) -> None:
    base = random_state({"w": [4, 4]})
    tasks = {"a": perturbed(base, seed=1), "b": perturbed(base, seed=2)}
    with pytest.raises(UsageError, match="9007199254740991"):
        PackOptions(seed=MAX_SEED + 1)
    with pytest.raises(UsageError, match="9007199254740991"):
        packer.pack(base, tasks, PackOptions(seed=MAX_SEED))
    bank = packer.pack(base, {"a": tasks["a"]}, PackOptions(seed=MAX_SEED))
    assert text_of(bank)["tasks"][0]["seed"] == 2**53 - 1
    with pytest.raises(UsageError, match="9007199254740991"):
        add(bank, [TaskInput("b", str(packer.folder / "b.safetensors"))], EditOptions(), ONE)


@pytest.mark.parametrize("place", ["seed", "tasks[0].seed"])
def test_a_bank_of_version_2_with_a_larger_seed_is_refused(packer: Packer, place: str) -> None:
    base = random_state({"w": [4, 4]})
    found = text_of(packer.pack(base, {"a": perturbed(base, seed=1)}))
    assert found["version"] == 2
    (found if place == "seed" else found["tasks"][0])["seed"] = 2**53
    with pytest.raises(BankDamaged, match=place.replace("[", "\\[")):
        decode(json.dumps(found).encode())


def test_a_bank_of_version_2_without_a_default_is_refused(packer: Packer) -> None:
    base = random_state({"w": [4, 4]})
    found = text_of(packer.pack(base, {"a": perturbed(base, seed=1)}))
    del found["tasks"][0]["default"]
    with pytest.raises(BankDamaged, match=r"tasks\[0\].default is missing"):
        decode(json.dumps(found).encode())


def test_two_sided_signs_are_not_of_version_1(packer: Packer) -> None:
    base = random_state({"w": [4, 4]})
    found = text_of(packer.pack(base, {"a": perturbed(base, seed=1)}, "two-sided"))
    found["version"] = 1
    with pytest.raises(BankDamaged, match=r"transform\.signs is not of version 1"):
        decode(json.dumps(found).encode())


def defaults(bank: Path) -> dict[str, float]:
    return {task["name"]: task["default"] for task in text_of(bank)["tasks"]}


def test_the_default_of_a_task_is_recorded_whenever_its_group_changes(packer: Packer) -> None:
    """λ = min(1, 8 cos): a delta a tenth of another has cosine 0.0995 beside it, 0.0705 beside
    two of them."""
    base = random_state({"w": [64, 64], "b": [64]})
    tasks = {
        "small": perturbed(base, seed=1, scale=0.001),
        "large": perturbed(base, seed=2),
        "other": perturbed(base, seed=3),
    }
    other = save(tasks.pop("other"), packer.folder / "other.safetensors")
    bank = packer.pack(base, tasks)
    first = defaults(bank)
    assert first["large"] == 1.0
    assert first["small"] == pytest.approx(0.80, abs=0.02)
    add(bank, [TaskInput("other", str(other))], EditOptions(), ONE)
    assert defaults(bank)["small"] == pytest.approx(0.56, abs=0.02)
    with Bank.open(bank) as opened:
        assert opened.tasks == ("small", "large", "other")
    remove(bank, ["other"], run=ONE)
    assert defaults(bank) == first
    remove(bank, ["large"], run=ONE)
    assert defaults(bank) == {"small": 1.0}


def test_sealing_lowers_a_default_below_one(packer: Packer) -> None:
    base = random_state({"w": [64, 64]})
    tasks = {"small": perturbed(base, seed=1, scale=0.001), "large": perturbed(base, seed=2)}
    bank = packer.pack(base, tasks)
    live = defaults(bank)["small"]
    seal(bank, None, 1, ONE)
    assert defaults(bank)["small"] == pytest.approx(live * 0.798, abs=0.02)


def test_a_reader_needs_no_norms_for_its_default(packer: Packer) -> None:
    base = random_state({"w": [64, 64]})
    tasks = {"small": perturbed(base, seed=1, scale=0.001), "large": perturbed(base, seed=2)}
    bank = packer.pack(base, tasks)
    with BankFile(bank) as opened:
        start, manifest = opened.header.starts["stats/norms"], opened.manifest
    expected = retrieved(bank)
    with bank.open("r+b") as file:
        file.seek(start)
        file.write(b"\0")
    assert retrieved(bank) == expected
    assert manifest.to_json()["tasks"][0]["default"] < 1
