"""`add --replace` is `remove` and then `add`, in one pass and one commit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.build.seal.seal import seal
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.files.atomic import atomic_file
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from randes_cli.ops.verify import verify
from randes_cli.specs import EditOptions, PackOptions, TaskInput
from randes_cli.stats.stored import stored_statistics
from tests.life.models import NAMES, ONE, make_bank, options, put, source, sums, write_family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family"))


def _copy(bank: Path, name: str) -> Path:
    return Path(shutil.copy(bank, bank.with_name(name)))


def _content(bank: Path) -> dict[str, bytes]:
    """All that a bank holds but its manifest: sums, base, exact tensors, statistics."""
    with BankFile(bank) as opened:
        keys = [key for key in opened.header.tensors if "/" in key and not key.startswith("align/")]
        return {key: opened.read_whole(key).tobytes() for key in keys}


def _inputs(folder: Path, pairs: dict[str, str]) -> list[TaskInput]:
    return [TaskInput(name, source(folder, content)) for name, content in pairs.items()]


@pytest.mark.parametrize("preset", ["hankel", "srsf", "shift"])
@pytest.mark.parametrize("bits", [16, 8])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True),
    contents=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    groups=st.sampled_from([1, 2]),
)
def test_replacing_is_removing_and_then_adding(
    folder: Path, preset: str, bits: int, start: list[str], contents: list[str], groups: int
) -> None:
    chosen = options(preset, bits, groups=groups)
    bank = make_bank(folder, tuple(start), chosen, out="replaced.randes")
    other = _copy(bank, "in-two-steps.randes")
    new = dict(zip(start, contents, strict=False))
    with BankFile(bank) as opened:
        places = {task.name: task.group for task in opened.manifest.tasks}
    tasks = [TaskInput(n, source(folder, c), group=places[n]) for n, c in new.items()]
    remove(other, list(new), run=ONE)
    try:
        add(bank, _inputs(folder, new), run=ONE, replace=True)
    except MismatchError as refused:
        assert "would overflow its 8-bit superposition" in str(refused)
        with pytest.raises(MismatchError, match="would overflow its 8-bit superposition"):
            add(other, tasks, run=ONE)
        return
    add(other, tasks, run=ONE)
    assert sums(bank) == sums(other)
    assert _content(bank) == _content(other)
    with BankFile(bank) as once, BankFile(other) as twice:
        assert once.manifest.tasks == twice.manifest.tasks
        assert once.manifest.steps == twice.manifest.steps
        assert once.manifest.next_index == twice.manifest.next_index
        left, right = stored_statistics(once), stored_statistics(twice)
        assert np.array_equal(left.grams, right.grams)
        assert verify(once, ONE).sound


def test_a_replacement_is_one_commit_that_reads_each_byte_about_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = make_bank(folder, ("whole", "single"), out="commits.randes")
    commits = []

    def counted(path: Path, **options: Any) -> object:
        commits.append(path)
        return atomic_file(path, **options)

    monkeypatch.setattr("randes_cli.files.bank.output.atomic_file", counted)
    report = add(bank, _inputs(folder, {"whole": "half", "new": "sparse"}), run=ONE, replace=True)
    assert commits == [bank]
    assert report.notes == (
        "new: no task of this name to replace, so it is added beside the others",
    )
    sizes = [Path(source(folder, name)).stat().st_size for name in ("whole", "half", "sparse")]
    assert sum(sizes) - 4096 < report.read_bytes < sum(sizes)
    assert [(task.name, task.index) for task in report.after] == [
        ("single", 1),
        ("whole", 2),
        ("new", 3),
    ]


def test_a_name_that_is_there_is_refused_with_both_ways_out(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "single"), out="named.randes")
    before = bank.read_bytes()
    with pytest.raises(UsageError, match=r"whole is already in the bank; --replace .*NAME=PATH"):
        put(bank, "half", "whole")
    assert bank.read_bytes() == before


def test_a_checkpoint_that_was_overwritten_is_refused_and_can_be_forgotten(
    folder: Path, tmp_path: Path
) -> None:
    for path in folder.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    bank = make_bank(tmp_path, ("whole", "single"), out="week.randes")
    kept = Path(shutil.copy(source(tmp_path, "whole"), tmp_path / "last-week.safetensors"))
    shutil.copy(source(tmp_path, "shrunk"), source(tmp_path, "whole"))
    new = _inputs(tmp_path, {"whole": "whole"})
    before = bank.read_bytes()
    with pytest.raises(MismatchError, match="say --checkpoint PATH, or --forget"):
        add(bank, new, run=ONE, replace=True)
    assert bank.read_bytes() == before
    other = _copy(bank, "forgotten.randes")
    add(other, new, run=ONE, replace=True, forget=True)
    with BankFile(other) as opened:
        assert opened.manifest.forgotten == ((0, 0),)
    add(bank, new, run=ONE, replace=True, checkpoints={"whole": str(kept)})
    with BankFile(bank) as opened:
        assert opened.manifest.forgotten == ()
        assert [task.name for task in opened.manifest.tasks] == ["single", "whole"]
        checks = measure(opened, {"whole": source(tmp_path, "whole")}, ONE)
    assert checks[0].cosine == pytest.approx(checks[0].predicted, abs=0.05)


def test_what_is_said_of_tasks_that_go_needs_tasks_that_go(folder: Path) -> None:
    bank = make_bank(folder, ("whole",), out="going.randes")
    new = _inputs(folder, {"half": "half"})
    for more in ({"forget": True}, {"checkpoints": {"whole": "x"}}):
        with pytest.raises(UsageError, match="--replace takes out"):
            add(bank, new, run=ONE, **more)
    with pytest.raises(UsageError, match="no task of that name goes"):
        again = _inputs(folder, {"whole": "half"})
        add(bank, again, run=ONE, replace=True, checkpoints={"half": "x"})


def test_a_replacement_of_nothing_is_refused_with_the_nearest_task(folder: Path) -> None:
    bank = make_bank(folder, ("whole",), out="fresh-name.randes")
    before = bank.read_bytes()
    for name, said in (
        ("whale", r"'whale' to replace \(did you mean whole\?\); "),
        ("q", "replace; add"),
    ):
        with pytest.raises(MissingError, match=said):
            add(bank, _inputs(folder, {name: "half"}), run=ONE, replace=True)
    assert bank.read_bytes() == before


def test_a_dry_run_shows_the_replacement_and_changes_nothing(folder: Path) -> None:
    bank = make_bank(folder, ("whole", "single"), out="dry.randes")
    before = bank.read_bytes()
    dry = EditOptions(dry_run=True)
    report = add(bank, _inputs(folder, {"whole": "half"}), dry, ONE, replace=True)
    assert bank.read_bytes() == before
    assert [task.name for task in report.after] == ["single", "whole"]


def test_a_sealed_group_gives_a_task_up_only_whole(folder: Path, tmp_path: Path) -> None:
    wide = {f"l.{n}.w": np.full((96, 64), n, np.float32) for n in range(2)}
    from safetensors.numpy import save_file

    save_file(wide, tmp_path / "base.safetensors")
    for seed, name in enumerate(("a", "b", "c")):
        noise = np.random.default_rng(seed).standard_normal((96, 64), np.float32)
        save_file({n: v + noise for n, v in wide.items()}, tmp_path / f"{name}.safetensors")
    bank = tmp_path / "sealed.randes"
    pack(source(tmp_path, "base"), _inputs(tmp_path, {"a": "a"}), bank, PackOptions(), ONE)
    both = tmp_path / "both.randes"
    pack(
        source(tmp_path, "base"), _inputs(tmp_path, {"a": "a", "b": "b"}), both, PackOptions(), ONE
    )
    for path in (bank, both):
        seal(path, None, 2, ONE)
    with pytest.raises(MismatchError, match="a is in group 0, which is sealed at 2 bits"):
        add(both, _inputs(tmp_path, {"a": "c"}), run=ONE, replace=True)
    add(bank, _inputs(tmp_path, {"a": "c"}), run=ONE, replace=True)
    with BankFile(bank) as opened:
        assert not opened.manifest.sealed
        checks = measure(opened, {"a": source(tmp_path, "c")}, ONE)
    assert checks[0].cosine > 0.999
