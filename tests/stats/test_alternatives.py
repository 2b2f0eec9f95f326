"""Choices of bits and groups: their sizes are those of real banks, and --fit takes the best."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import PackOptions, RunOptions, TaskInput, pack
from randes_cli.build.seal import fit_bits
from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import Alternative, PackReport
from randes_cli.stats.alternatives import advice, best_fit, parse_limit
from tests.checkpoints import perturbed, random_state, save

ONE = RunOptions(threads=1)
SHAPES = {"a.weight": [200, 150], "b.weight": [150, 300], "norm.weight": [150]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = random_state(SHAPES, seed=1)
    save(base, tmp_path / "base.safetensors")
    for number in range(4):
        save(perturbed(base, seed=number), tmp_path / f"t{number}.safetensors")
    return tmp_path


def packed(folder: Path, *, dry_run: bool = False, **options: object) -> PackReport:
    tasks = [TaskInput(f"t{n}", str(folder / f"t{n}.safetensors")) for n in range(4)]
    base, out = str(folder / "base.safetensors"), folder / "bank.randes"
    made = PackOptions(**options)  # type: ignore[arg-type]
    return pack(base, tasks, out, made, ONE, force=True, dry_run=dry_run)


def choice(report: PackReport, groups: int, bits: int) -> Alternative:
    return next(a for a in report.alternatives if (a.groups, a.bits) == (groups, bits))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_an_alternative_is_what_packing_so_gives(folder: Path, groups: int, bits: int) -> None:
    guess = choice(packed(folder, dry_run=True), groups, bits)
    real = packed(folder, groups=groups, bits=bits)
    mean = sum(task.predicted_cosine for task in real.tasks) / 4
    assert guess.predicted_cosine == pytest.approx(mean, abs=0.02)
    assert guess.bank_bytes == pytest.approx(real.bank_bytes, abs=12_000)


def test_one_choice_is_the_bank_at_hand(folder: Path) -> None:
    packed(folder, groups=2, bits=2)
    with BankFile(folder / "bank.randes") as file:
        report = describe(file)
    here = [one for one in report.alternatives if one.present]
    assert [(one.groups, one.bits, one.bank_bytes) for one in here] == [(2, 2, report.bank_bytes)]


def test_fit_packs_the_best_predicted_within_the_size(folder: Path) -> None:
    report = packed(folder, dry_run=True)
    limit = choice(report, 2, 4).bank_bytes + 2000
    best = best_fit(report.alternatives, limit)
    made = packed(folder, fit=f"{limit}")
    assert (made.groups, made.bits) == (best.groups, best.bits)
    assert made.bank_bytes <= limit
    inside = [a for a in report.alternatives if a.bank_bytes <= limit and a.bits > 1]
    assert best.predicted_cosine == max(one.predicted_cosine for one in inside)


def test_one_bit_is_taken_only_where_nothing_else_fits() -> None:
    choices = [Alternative(4, 1, 100, 0.8, False), Alternative(1, 2, 90, 0.5, False)]
    assert best_fit(choices, 100).bits == 2
    assert best_fit(choices[:1], 100).bits == 1
    with pytest.raises(UsageError, match="the smallest bank takes 90 bytes"):
        best_fit(choices, 50)


def test_a_limit_is_a_ratio_or_a_size() -> None:
    assert parse_limit("1.5", 1000) == 1500
    assert parse_limit("1.07x", 1000) == 1070
    assert parse_limit("2MB", 1000) == 2_000_000
    assert parse_limit("5000", 1000) == 5000
    with pytest.raises(UsageError):
        parse_limit("small", 1000)


def test_fit_and_named_groups_exclude_each_other(folder: Path) -> None:
    task = TaskInput("t0", str(folder / "t0.safetensors"), group=1)
    base, out = str(folder / "base.safetensors"), folder / "bank.randes"
    with pytest.raises(UsageError, match="leave @GROUP out"):
        pack(base, [task], out, PackOptions(fit="2.0"), ONE)


def test_advice_comes_where_a_delta_a_task_is_no_larger_and_better(folder: Path) -> None:
    wide = packed(folder, dry_run=True, bits=16)
    assert wide.advice is not None and "--groups 4 --bits" in wide.advice
    assert packed(folder, dry_run=True, bits=2).advice is None
    assert advice(wide.alternatives, 4, 10**9, 0.5, 4) is None


def test_seal_fit_takes_the_most_bits_within_the_size(folder: Path) -> None:
    report = packed(folder, dry_run=True)
    packed(folder)
    bank = folder / "bank.randes"
    assert fit_bits(bank, str(choice(report, 1, 3).bank_bytes + 3000)) == 3
    with pytest.raises(UsageError, match="even one bit takes"):
        fit_bits(bank, "2000")
