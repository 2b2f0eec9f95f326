"""Choices of bits, groups and shares: their sizes are those of real banks, --fit and --keep take
the best."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from randes_cli import PackOptions, RunOptions, TaskInput, Transform, add, pack
from randes_cli.build.seal.seal import fit_bits, seal
from randes_cli.cli.main import run
from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import EditOptions
from randes_cli.stats.alternatives import (
    advice,
    best_fit,
    parse_keep,
    parse_limit,
    smallest_keeping,
)
from randes_cli.stats.frontier import frontier
from tests.checkpoints import save_family

ONE = RunOptions(threads=1)
KEPT = ("kept_low", "kept", "kept_high")
SHAPES = {"a.weight": [200, 150], "b.weight": [150, 300], "norm.weight": [150]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_family(tmp_path, SHAPES, [f"t{n}" for n in range(4)], seed=1)
    return tmp_path


def packed(folder: Path, *, dry_run: bool = False, **options: object) -> PackReport:
    tasks = [TaskInput(f"t{n}", str(folder / f"t{n}.safetensors")) for n in range(4)]
    base, out = str(folder / "base.safetensors"), folder / "bank.randes"
    made = PackOptions(**options)  # type: ignore[arg-type]
    return pack(base, tasks, out, made, ONE, force=True, dry_run=dry_run)


def choice(report: PackReport, groups: int, bits: int, share: int = 1) -> Alternative:
    wanted = groups, bits, share
    return next(a for a in report.alternatives if (a.groups, a.bits, a.share) == wanted)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize(("groups", "share"), [(1, 1), (2, 1), (4, 1), (2, 2)])
def test_an_alternative_is_what_packing_so_gives(
    folder: Path, groups: int, bits: int, share: int
) -> None:
    guess = choice(packed(folder, dry_run=True), groups, bits, share)
    real = packed(folder, groups=groups, bits=bits, share=share)
    mean = sum(task.predicted_cosine for task in real.tasks) / 4
    assert guess.predicted_cosine == pytest.approx(mean, abs=0.02)
    kept = [sum(getattr(task, key) for task in real.tasks) / 4 for key in KEPT]
    assert [getattr(guess, key) for key in KEPT] == pytest.approx(kept, abs=0.01)
    assert guess.bank_bytes == pytest.approx(real.bank_bytes, rel=0.005)


def test_one_choice_is_the_bank_at_hand(folder: Path) -> None:
    packed(folder, groups=2, bits=2)
    with BankFile(folder / "bank.randes") as file:
        report = describe(file)
    here = [one for one in report.alternatives if one.present]
    found = [(one.groups, one.bits, one.share, one.bank_bytes) for one in here]
    assert found == [(2, 2, 1, report.bank_bytes)]
    assert here[0].kept == pytest.approx(
        sum((task.kept or 0.0) for task in report.tasks) / 4, abs=1e-3
    )


def test_the_choices_that_are_shown_have_the_bytes_of_the_files_that_they_make(
    folder: Path,
) -> None:
    for options in ({}, {"groups": 2, "bits": 2}, {"bits": 8, "share": 2}):
        report = packed(folder, dry_run=True, **options)
        shown = frontier(report.alternatives)
        assert len(shown) > 4
        for one in shown:
            real = packed(folder, groups=one.groups, bits=one.bits, share=one.share)
            assert (folder / "bank.randes").stat().st_size == real.bank_bytes == one.bank_bytes
            assert one.exact
        others = [one for one in report.alternatives if one not in shown]
        assert others and not all(one.exact for one in others)


@pytest.mark.parametrize(("groups", "bits", "share"), [(1, 16, 1), (2, 8, 2), (4, 2, 1), (3, 1, 2)])
def test_a_dry_run_tells_the_bytes_of_the_file(
    folder: Path, groups: int, bits: int, share: int
) -> None:
    told = packed(folder, dry_run=True, groups=groups, bits=bits, share=share)
    assert told.bank_bytes == packed(folder, groups=groups, bits=bits, share=share).bank_bytes


def test_a_dry_run_of_seal_tells_the_bytes_of_the_file(folder: Path) -> None:
    packed(folder, groups=2)
    bank, out = folder / "bank.randes", folder / "sealed.randes"
    for bits in (1, 3, 8):
        told = seal(bank, out, bits, ONE, dry_run=True).bytes_after
        assert told == seal(bank, out, bits, ONE, force=True).bytes_after == out.stat().st_size


def test_fit_packs_what_is_predicted_to_keep_most_within_the_size(folder: Path) -> None:
    report = packed(folder, dry_run=True)
    sizes = [one.bank_bytes for one in frontier(report.alternatives)]
    for limit in (size + more for size in sizes[1::2] for more in (0, -1)):
        made = packed(folder, fit=f"{limit}")
        assert made.bank_bytes == (folder / "bank.randes").stat().st_size <= limit
        inside = [one for one in report.alternatives if one.bank_bytes <= 0.998 * limit]
        taken = choice(report, made.groups, made.bits, made.share)
        most = max([one.kept for one in inside], default=0.0)
        assert taken.kept >= most - 0.001  # what is nearly as good may be so when it is tried
        assert packed(folder, fit=f"{limit}", dry_run=True).bank_bytes == made.bank_bytes


def test_fit_says_what_is_the_least_and_writes_nothing(folder: Path) -> None:
    least = min(one.bank_bytes for one in packed(folder, dry_run=True).alternatives)
    with pytest.raises(UsageError, match=f"the smallest bank takes {least:,} bytes"):
        packed(folder, fit=f"{least - 1}")
    assert not (folder / "bank.randes").exists()


def test_keep_packs_the_smallest_bank_that_is_predicted_to_keep_so_much(folder: Path) -> None:
    """The table tells sizes to half a percent, and a trial of what is nearly as small the bytes."""
    report = packed(folder, dry_run=True)
    for share in (0.9, 0.97, 0.99, 0.999):
        made = packed(folder, keep=f"{share:.1%}")
        enough = [one for one in report.alternatives if round(one.kept, 4) >= share]
        least = min(one.bank_bytes for one in enough)
        assert choice(report, made.groups, made.bits, made.share) in enough
        assert made.bank_bytes == pytest.approx(least, rel=0.005)


def test_what_cannot_be_is_said_with_what_can() -> None:
    small = Alternative(1, 1, 90, 0.5, False, kept=0.9)
    choices = [Alternative(4, 1, 100, 0.8, False, kept=0.99), small]
    assert best_fit(choices, 100) == choices[0]
    assert best_fit(choices, 99) == smallest_keeping(choices, 0.9) == small
    with pytest.raises(UsageError, match=r"smallest bank takes 90 bytes \(1 group at 1 bit\)"):
        best_fit(choices, 50)
    with pytest.raises(UsageError, match=r"none is predicted to keep 99\.50 % .* keep 99\.00 %"):
        smallest_keeping(choices, 0.995)


@pytest.mark.parametrize("text", ["99%", "0.99", " 99 %"])
def test_a_quality_is_a_share_of_the_gain(text: str) -> None:
    assert parse_keep(text) == pytest.approx(0.99)
    assert parse_keep("99.9%") == 0.999


@pytest.mark.parametrize("text", ["99", "0", "-1%", "all", "101%", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--keep takes a share of the gain"):
        parse_keep(text)


def test_a_size_and_a_quality_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        PackOptions(fit="1.1", keep="99%")


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


def test_advice_names_a_choice_that_keeps_more_in_no_more_bytes() -> None:
    here = Alternative(1, 16, 200, 0.5, True, kept=0.95, exact=True)
    better = Alternative(4, 2, 150, 0.8, False, share=2, kept=0.99, exact=True)
    text = advice([here, better])
    assert text is not None and "--groups 4 --bits 2 --share 1/2" in text
    assert "99.0 % of the gain over the base, not 95.0 %" in text
    assert advice([here, replace(better, kept=0.954)]) is None
    assert advice([here, replace(better, bank_bytes=201)]) is None
    assert advice([here, replace(better, exact=False)]) is None


def test_the_last_line_names_the_seal_that_saves_and_loses_nothing(folder: Path) -> None:
    live = packed(folder, groups=2)
    words = re.search(r"^randes (seal .*) would make it ([\d.]+) ×", live.saving or "")
    assert words is not None
    command = shlex.split(words[1])
    assert command[1] == live.bank and run([*command, "--quiet"]) == 0
    bits, made = int(command[3]), Path(command[5]).stat().st_size
    sealed = packed(folder, groups=2, bits=bits)
    assert sealed.saving is None and sealed.bank_bytes == made
    assert sealed.bank_bytes / sealed.base_bytes == pytest.approx(float(words[2]), abs=0.05)
    lost = [choice(live, 2, n).kept for n in (16, bits)]
    assert lost[0] - lost[1] <= 0.005
    with BankFile(folder / "bank.randes") as file:
        assert describe(file).saving is None


def test_a_bank_that_is_sealed_is_not_told_to_seal_and_a_mixed_one_is_no_choice(
    folder: Path,
) -> None:
    packed(folder, groups=2)
    bank = folder / "bank.randes"
    with BankFile(bank) as file:
        (best,) = [one for one in describe(file).alternatives if one.exact and not one.present]
    made = seal(bank, folder / "other.randes", best.bits, ONE).bytes_after
    assert made == best.bank_bytes and best.groups == 2
    seal(bank, None, 8, ONE)
    with BankFile(bank) as file:
        report = describe(file)
    assert report.saving is None and any(one.present for one in report.alternatives)
    add(bank, [TaskInput("t4", str(folder / "t0.safetensors"))], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert len(file.manifest.sealed) == 2 and file.manifest.groups == 3
        assert not any(one.present for one in describe(file).alternatives)


def test_seal_fit_takes_the_most_bits_within_the_size(folder: Path) -> None:
    report = packed(folder, dry_run=True)
    packed(folder)
    bank = folder / "bank.randes"
    assert fit_bits(bank, str(choice(report, 1, 3).bank_bytes + 300)) == 3
    whole = str(seal(bank, bank, 4, ONE, dry_run=True).bytes_after)
    assert (fit_bits(bank, whole), fit_bits(bank, whole, 2000)) == (4, 3)  # headers of shards
    with pytest.raises(UsageError, match="one bit takes"):
        fit_bits(bank, "2000")


def test_nothing_is_predicted_where_nothing_was_measured(folder: Path) -> None:
    report = packed(folder, transform=Transform.from_preset("s"))
    assert report.alternatives == () and report.saving is None and report.tasks[0].kept is None
    with pytest.raises(UsageError, match="say --bits and --groups"):
        packed(folder, transform=Transform.from_preset("s"), fit="1.2")


def test_inspect_says_where_only_tune_knows_the_coefficient(folder: Path) -> None:
    base = str(folder / "base.safetensors")
    for count, told in ((4, False), (40, True)):
        tasks = [TaskInput(f"t{n}", str(folder / f"t{n % 4}.safetensors")) for n in range(count)]
        pack(base, tasks, folder / "bank.randes", PackOptions(), ONE, force=True)
        with BankFile(folder / "bank.randes") as file:
            assert bool(describe(file).unsure) is told
