"""What `remove` asks for, what it refuses, and what statistics say afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.build.edit import add, remove
from randes_cli.cli.main import run
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from randes_cli.specs import BaseStorage, EditOptions, RunOptions, TaskInput
from randes_cli.stats.stored import stored_statistics
from randes_cli.stats.summaries import summaries
from tests.independent.judge import judge
from tests.life.models import (
    ONE,
    make_bank,
    options,
    packed_afresh,
    put,
    source,
    sums,
    take,
    write_family,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_family(tmp_path)


@pytest.fixture
def bank(folder: Path) -> Path:
    return make_bank(folder, ("whole", "single", "half"))


def _elsewhere(folder: Path, name: str) -> Path:
    """Move a member's file away from the bank; its new place."""
    place = folder / "elsewhere"
    place.mkdir(exist_ok=True)
    return (folder / f"{name}.safetensors").rename(place / "other-name.safetensors")


def _without(folder: Path, *gone: str) -> dict[str, tuple[str, bytes, bytes]]:
    names = tuple(name for name in ("whole", "single", "half") if name not in gone)
    with BankFile(folder / "bank.randes") as opened:
        assert tuple(task.name for task in opened.manifest.tasks) == names
    return sums(packed_afresh(folder / "bank.randes", folder))


def test_the_recorded_source_is_tried_first(bank: Path, folder: Path) -> None:
    take(bank, "half")
    assert sums(bank) == _without(folder, "half")


def test_a_source_that_moved_is_asked_for_and_then_taken(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = _elsewhere(folder, "half")
    before = bank.read_bytes()
    assert run(["remove", str(bank), "--task", "half"]) == 5
    said = capsys.readouterr().err
    assert "'half.safetensors'" in said and "--checkpoint" in said and "--forget" in said
    assert bank.read_bytes() == before
    assert run(["remove", str(bank), "--task", "half", "--checkpoint", str(moved), "-q"]) == 0
    assert sums(bank) == _without(folder, "half")


def test_a_resharded_copy_in_another_order_passes(bank: Path, folder: Path) -> None:
    state = load_file(source(folder, "half"))
    place = folder / "sharded"
    place.mkdir()
    names, weights = sorted(state, reverse=True), {}
    for number in range(3):
        part = names[number::3]
        save_file({name: state[name] for name in part}, place / f"{number}.safetensors")
        weights.update(dict.fromkeys(part, f"{number}.safetensors"))
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "half.safetensors").unlink()
    remove(bank, ["half"], run=ONE, checkpoints={"half": str(place)})
    assert sums(bank) == _without(folder, "half")


@pytest.mark.parametrize("name", ["h.0.w", "table", "head.weight", "ids"])
def test_a_copy_with_one_other_weight_is_refused_and_nothing_changes(
    bank: Path, folder: Path, name: str
) -> None:
    state = load_file(source(folder, "whole"))
    flat = state[name].reshape(-1)
    flat[-1] = np.nextafter(flat[-1], 9) if flat.dtype == np.float32 else flat[-1] + 1
    save_file(state, folder / "whole.safetensors")
    before = bank.read_bytes()
    with pytest.raises(MismatchError, match=r"not the checkpoint that was packed as whole"):
        take(bank, "whole")
    assert bank.read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_forget_keeps_the_delta_and_says_what_that_means(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sums(bank)
    _elsewhere(folder, "half")
    would = "would forget half: the record alone goes"
    for more, words in (["--dry-run"], would), ([], "forgot half: the record alone is gone"):
        assert run(["remove", str(bank), "--task", "half", "--forget", *more]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert words in said and "what was added stays as interference" in said
        assert "whoever has the bank can still retrieve it" in said
    assert sums(bank) == before
    with BankFile(bank) as opened:
        assert opened.manifest.forgotten == ((2, 0),)
        assert [task.name for task in opened.manifest.tasks] == ["whole", "single"]
    put(bank, "shrunk")
    with BankFile(bank) as opened:
        assert opened.manifest.tasks[-1].index == 3
    take(bank, "shrunk")
    assert sums(bank) == before


def test_forgetting_needs_no_base(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "half"), options(base_storage=BaseStorage.reference))
    _elsewhere(folder, "base")
    remove(bank, ["half"], run=ONE, forget=True)
    with pytest.raises(MissingError, match="--base"):
        take(bank, "whole")


def test_a_group_whose_tasks_left_tensors_as_they_were_is_restored_too(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "single"), options(groups=2))
    before = sums(bank)
    put(bank, "half")
    take(bank, "half")
    assert sums(bank) == before


def test_what_only_a_task_that_goes_changed_in_its_group_goes_with_it(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "single"), options(groups=2))
    take(bank, "single")
    put(bank, "single")
    before = sums(bank)
    add(bank, [TaskInput("half", source(folder, "half"), group=1)], EditOptions(), ONE)
    take(bank, "half")
    assert sums(bank) == before


def test_a_bank_of_forgotten_tasks_alone_is_as_its_document_says(folder: Path) -> None:
    bank = make_bank(folder, ("single",))
    remove(bank, ["single"], run=ONE, forget=True)
    judge(bank)


def test_another_base_beside_a_bank_is_refused(folder: Path) -> None:
    bank = make_bank(folder, ("single",), options(base_storage=BaseStorage.reference))
    state = load_file(source(folder, "base"))
    state["h.1.w"] = state["h.1.w"] + np.float32(1e-6)
    save_file(state, folder / "base.safetensors")
    before = bank.read_bytes()
    with pytest.raises(MismatchError, match=r"tensor 'h\.1\.w' has other values than the base"):
        put(bank, "whole")
    assert bank.read_bytes() == before


@pytest.mark.parametrize("bits", [16, 8])
def test_an_overflow_is_refused_with_the_tensor_and_the_way_out(folder: Path, bits: int) -> None:
    bank = make_bank(folder, ("single",), options(bits=bits))
    state = load_file(source(folder, "base"))
    state["h.1.w"] = state["h.1.w"] + np.float32(1000)
    save_file(state, folder / "far.safetensors")
    before = bank.read_bytes()
    with pytest.raises(MismatchError, match=r"'h\.1\.w' would overflow its .*--bits 16 or a"):
        add(bank, [TaskInput("far", source(folder, "far"))], run=ONE)
    assert bank.read_bytes() == before


def test_an_8_bit_sum_fills_up_task_by_task_and_is_then_refused(folder: Path) -> None:
    bank = make_bank(folder, ("single",), options(bits=8))
    with BankFile(bank) as opened:
        assert opened.info("sum/0/h.1.w").dtype == "I8"
    refused, tasks = None, 1
    while tasks < 400 and refused is None:
        before = bank.read_bytes()
        more = [TaskInput(f"t{tasks + n}", source(folder, "single")) for n in range(8)]
        try:
            add(bank, more, run=ONE)
            tasks += len(more)
        except MismatchError as error:
            refused = error
    assert refused is not None and "'h.1.w' would overflow its 8-bit" in str(refused)
    assert bank.read_bytes() == before
    assert tasks >= 16


def test_a_new_tensor_too_heavy_for_8_bits_is_kept_at_16(folder: Path) -> None:
    bank = make_bank(folder, ("single",), options(bits=8))
    state = load_file(source(folder, "base"))
    state["table"][1] += np.float32(0.01)
    state["table"][70] += np.float32(3)  # no sample sees this row
    save_file(state, folder / "heavy.safetensors")
    add(bank, [TaskInput("heavy", source(folder, "heavy"))], run=ONE)
    with BankFile(bank) as opened:
        assert opened.manifest.widths == {"table": 16}
        assert opened.info("sum/0/table").dtype == "I16"
    assert sums(bank) == sums(packed_afresh(bank, folder))


def test_names_and_indices_are_never_taken_twice(bank: Path, folder: Path) -> None:
    for name, said in (("whole", "already in the bank"), ("WHOLE", "differ only in case")):
        with pytest.raises(UsageError, match=said):
            add(bank, [TaskInput(name, source(folder, "half"))], run=ONE)
    take(bank, "half")
    put(bank, "half")
    with BankFile(bank) as opened:
        assert [(task.name, task.index, task.seed) for task in opened.manifest.tasks] == [
            ("whole", 0, 42),
            ("single", 1, 43),
            ("half", 3, 45),
        ]


def test_a_dry_run_of_each_edit_changes_no_byte_and_no_file(bank: Path, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    report = add(
        bank, [TaskInput("shrunk", source(folder, "shrunk"))], EditOptions(dry_run=True), ONE
    )
    assert [task.name for task in report.after] == ["whole", "single", "half", "shrunk"]
    report = remove(bank, ["half"], EditOptions(dry_run=True), ONE)
    assert [task.name for task in report.after] == ["whole", "single"]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_every_byte_of_the_new_checkpoint_and_of_the_base_is_read_about_once(
    bank: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, read, real = Path(source(folder, "shrunk")).stat(), {"new": 0, "bank": 0}, os.preadv
    size = bank.stat().st_size

    def count(fd: int, views: list[memoryview], at: int) -> int:
        done = real(fd, views, at)
        found = os.fstat(fd)
        if os.path.samestat(found, new):
            read["new"] += done
        elif found.st_size == size:
            read["bank"] += done
        return done

    monkeypatch.setattr(os, "preadv", count)
    put(bank, "shrunk")
    # The samples for the step and the statistics come on top; here they are whole tensors.
    with BankFile(bank) as opened:
        sampled = 3 * sum(min(t.nbytes, 2**18) for t in opened.manifest.base.tensors.values())
    assert read["new"] <= new.st_size + sampled
    assert read["bank"] <= size + 4 * sampled


def test_statistics_are_estimated_and_marked_where_checkpoints_are_gone(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "half"))
    for name in ("whole", "half"):
        _elsewhere(folder, name).rename(folder / "elsewhere" / f"{name}.safetensors")
    put(bank, "shrunk")
    with BankFile(bank) as opened:
        estimated = stored_statistics(opened)
        assert opened.manifest.estimated == {(0, 2), (1, 2)}
        guessed = {s.name: s.predicted_cosine for s in summaries(opened.manifest, estimated)}
        for name, place in (("whole", "elsewhere"), ("half", "elsewhere"), ("shrunk", ".")):
            path = folder / place / f"{name}.safetensors"
            found = measure(opened, {name: str(path)}, RunOptions(threads=1))[0]
            assert found.cosine == pytest.approx(guessed[name], abs=0.05)
    for name in ("whole", "half"):
        (folder / "elsewhere" / f"{name}.safetensors").rename(folder / f"{name}.safetensors")
    with BankFile(packed_afresh(bank, folder)) as fresh:
        exact = stored_statistics(fresh)
        assert np.array_equal(estimated.known.norms, exact.known.norms)
        right = {s.name: s.predicted_cosine for s in summaries(fresh.manifest, exact)}
    assert guessed == pytest.approx(right, abs=0.02)
    take(bank, "shrunk")
    with BankFile(bank) as opened:
        assert opened.manifest.estimated == frozenset()


def test_predictions_after_edits_are_what_is_then_measured(folder: Path) -> None:
    bank = make_bank(folder, ("whole",))
    put(bank, "half")
    put(bank, "shrunk")
    take(bank, "half")
    with BankFile(bank) as opened:
        predicted = summaries(opened.manifest, stored_statistics(opened))
        for task in predicted:
            found = measure(opened, {task.name: source(folder, task.name)}, ONE)[0]
            assert found.cosine == pytest.approx(task.predicted_cosine, abs=0.02)
