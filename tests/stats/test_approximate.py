"""What nobody measured is said: in one line, and in a field of every report that has the number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from randes_cli import PackOptions, RunOptions, add, pack, remove, unpack, verify
from randes_cli.build.seal.seal import seal
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.specs import EditOptions
from tests.checkpoints import Packer, save

BANKS = Path(__file__).parents[1] / "banks"
ONE = RunOptions(threads=1)
SEALED, ROUNDED = "sealed by an older version", "packed by an older version"


def models(kinds: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    chance = torch.Generator().manual_seed(3)
    base = torch.randn(64, 64, generator=chance)
    made = {}
    for kind in kinds:
        delta = 0.01 * torch.randn(64, 64, generator=chance)
        few = torch.rand(64, 64, generator=chance) < 0.02
        made[kind] = base + (delta * few if kind.startswith("sparse") else delta)
    return {"w": base}, made


def bank_of(folder: Path, kinds: tuple[str, ...], options: PackOptions) -> Path:
    base, tasks = models(kinds)
    return Packer(folder).pack(base, {n: {"w": v} for n, v in tasks.items()}, options)


def said(bank: Path) -> dict[str, str]:
    with BankFile(bank) as opened:
        return {task.name: task.approximate for task in describe(opened).tasks}


@pytest.mark.parametrize("name", ["v1-sealed", "v1-digits", "v1-example"])
def test_a_bank_of_an_older_version_says_that_its_predictions_are_approximate(name: str) -> None:
    bank = BANKS / f"{name}.randes"
    reasons = said(bank)
    assert all(ROUNDED in text for text in reasons.values())
    assert all((SEALED in text) == (name == "v1-sealed") for text in reasons.values())
    assert any(ROUNDED in line for line in verify(bank, run=ONE).approximate)
    for report in unpack(bank, out="out", dry_run=True):
        assert report.approximate == reasons[report.task]


def test_the_commands_say_it_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    bank = str(BANKS / "v1-sealed.randes")
    for words in (["inspect", bank], ["verify", bank], ["unpack", bank, "--all", "--dry-run"]):
        assert run(words) == 0
        assert SEALED in " ".join("".join(capsys.readouterr()).split())
    assert run(["verify", bank, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert any(SEALED in line for line in read["approximate"])


def test_a_bank_of_today_whose_deltas_are_alike_says_nothing(tmp_path: Path) -> None:
    for options in (PackOptions(), PackOptions(bits=2), PackOptions(bits=8)):
        bank = bank_of(tmp_path, ("a", "b"), options)
        assert set(said(bank).values()) == {""} and not verify(bank, run=ONE).approximate
        assert not any(one.approximate for one in unpack(bank, out=tmp_path / "o", dry_run=True))


def test_few_bits_of_unlike_deltas_are_said_to_be_approximate(tmp_path: Path) -> None:
    unlike = said(bank_of(tmp_path, ("a", "sparse"), PackOptions(bits=2)))
    assert all("unlike" in text for text in unlike.values())
    alone = said(bank_of(tmp_path, ("a", "sparse"), PackOptions(bits=2, groups=2)))
    assert set(alone.values()) == {""}


def test_dry_runs_say_that_they_look_at_samples(tmp_path: Path) -> None:
    base, tasks = models(("a", "b"))
    inputs = Packer(tmp_path).inputs({name: {"w": value} for name, value in tasks.items()})
    source, bank = str(save(base, tmp_path / "base.safetensors")), tmp_path / "bank.randes"
    dry = pack(source, inputs, bank, run=ONE, dry_run=True)
    assert all("sample" in task.approximate for task in dry.tasks)
    assert not any(task.approximate for task in pack(source, inputs[:1], bank, run=ONE).tasks)
    grown = add(bank, inputs[1:], EditOptions(dry_run=True), ONE).after
    assert all("sample" in task.approximate for task in grown)
    cut = seal(bank, None, 2, ONE, dry_run=True).after
    assert all("measured while" in task.approximate for task in cut)
    assert not any(task.approximate for task in seal(bank, None, 2, ONE).after)


def test_an_original_that_is_gone_makes_predictions_approximate(tmp_path: Path) -> None:
    base, tasks = models(("a", "b"))
    inputs = Packer(tmp_path).inputs({name: {"w": value} for name, value in tasks.items()})
    source, bank = str(save(base, tmp_path / "base.safetensors")), tmp_path / "bank.randes"
    pack(source, inputs[:1], bank, run=ONE)
    Path(inputs[0].source).unlink()
    after = add(bank, inputs[1:], EditOptions(), ONE).after
    assert all("estimated" in task.approximate for task in after)
    assert said(bank) == {task.name: task.approximate for task in after}
    remove(bank, ["a"], EditOptions(), ONE, forget=True)
    assert set(said(bank).values()) == {""}
