"""A bank in shards is the bank in one file, whatever is done to it; only its files are others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from randes_cli import TuneOptions, convert, remove, seal, tune
from randes_cli.build.edit import add
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import BaseStorage, EditOptions, TaskInput
from tests.independent.judge import judge
from tests.life.models import NAMES, ONE, make_bank, options, put, source, take
from tests.shards.conftest import SIZE, as_single, everything, inodes, sharded, shards

Step = Callable[[Path], object]


def _toggle(name: str) -> Step:
    def step(bank: Path) -> object:
        with BankFile(bank) as opened:
            here = {task.name for task in opened.manifest.tasks}
        (take if name in here else put)(bank, name)
        return None

    return step


def _tune(bank: Path) -> object:
    return tune(bank, lambda *_: 1.0, TuneOptions(grid=(0.5, 1.0)), ONE)


@pytest.mark.parametrize("preset", ["two-sided", "srsf"])
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    steps=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
    size=st.sampled_from([1, 2_000, SIZE, 300_000, 10**9]),
    groups=st.sampled_from([1, 2]),
    outside=st.booleans(),
)
def test_edits_of_a_bank_in_shards_are_those_of_a_bank_in_one_file(
    family_files: Path,
    preset: str,
    start: list[str],
    steps: list[str],
    size: int,
    groups: int,
    outside: bool,
) -> None:
    more: dict[str, Any] = {
        "groups": groups,
        "base_storage": BaseStorage("reference" if outside else "embed"),
    }
    one = make_bank(family_files, tuple(start), options(preset, **more), out="one.randes")
    many = sharded(family_files, *start, out="many.randes", size=size, preset=preset, **more)
    for step in [lambda _: None, *map(_toggle, steps)]:
        for bank in (one, many):
            step(bank)
        assert as_single(many) == one.read_bytes()
        convert(one, family_files / "cut.randes", max_shard_size=size, force=True)
        assert shards(family_files / "cut.randes") == shards(many)


@pytest.mark.parametrize("bits", [16, 8, 2])
def test_sealing_tuning_and_forgetting_are_alike(folder: Path, bits: int) -> None:
    one = make_bank(folder, NAMES[:3], options(bits=bits, groups=2), out="one.randes")
    many = sharded(folder, *NAMES[:3], out="many.randes", bits=bits, groups=2)
    steps: list[Step] = [
        _tune,
        lambda bank: remove(bank, ["whole"], run=ONE, forget=True),
        lambda bank: bits > 4 and seal(bank, None, 3, ONE),
        lambda bank: put(bank, "half"),
    ]
    for step in steps:
        for bank in (one, many):
            step(bank)
        assert as_single(many) == one.read_bytes()
    judge(many)


def test_index_and_shards_are_files_of_the_stock_reader_with_the_bank_s_tensors(
    folder: Path,
) -> None:
    one = make_bank(folder, ("whole", "sparse"), out="one.randes")
    many = sharded(folder, "whole", "sparse", out="many.randes")
    found = {}
    for name in shards(many):
        found.update(load_file(folder / "many.randes.d" / name))
    expected = load_file(one)
    index = load_file(many)
    content = {k for k in expected if not k.startswith("align/")} - {"manifest", "checks"}
    assert content == {k for k in found if not k.startswith("align/")} - {"checks"}
    assert all((found[key] == expected[key]).all() for key in content)
    assert {key.partition("/")[0] for key in index} == {"shards", "shard", "manifest", "checks"}
    assert b'"features":["superposition","shards"' in bytes(index["manifest"])


def test_no_shard_is_larger_than_asked_but_for_one_large_tensor(folder: Path) -> None:
    for size in (3_000, 20_000, 150_000):
        bank = sharded(folder, *NAMES, size=size)
        for name, data in shards(bank).items():
            tensors = load_file(folder / "bank.randes.d" / name)
            alone = [t for key, t in tensors.items() if key != "checks"]
            assert len(data) <= size or len(alone) == 1


def test_an_edit_writes_the_shards_that_change_and_none_of_the_base(folder: Path) -> None:
    bank = sharded(folder, "whole", "single", groups=2)
    before = inodes(bank)
    add(bank, [TaskInput("half", source(folder, "half"), group=1)], EditOptions(), ONE)
    after = inodes(bank)
    kinds = {
        name: {key.rpartition("/")[0] or key for key in load_file(folder / "bank.randes.d" / name)}
        for name in after
    }
    stays = {name for name in after if any(k.startswith(("base", "sum/0")) for k in kinds[name])}
    assert stays and all(before[name] == after[name] for name in stays)
    changed = {name for name in after if name not in before}
    assert {kind.split("/")[0] for name in changed for kind in kinds[name]} == {
        "sum",
        "stats",
        "checks",
    }
    assert set(before) - set(after), "old shards are removed"


def test_a_bank_in_shards_keeps_its_cut_and_can_get_another(folder: Path) -> None:
    bank = sharded(folder, "whole")
    put(bank, "half")
    assert all(len(data) <= 400_000 for data in shards(bank).values())
    kept = set(shards(bank))
    convert(bank, folder / "again.randes", max_shard_size=SIZE)
    assert set(shards(folder / "again.randes")) == kept
    halves = [TaskInput("sparse", source(folder, "sparse"))]
    add(bank, halves, EditOptions(max_shard_size=10**9), ONE)
    assert len(shards(bank)) == 4  # base, sums, what tasks keep, statistics
    one = make_bank(folder, ("whole",), out="one.randes")
    add(one, halves, EditOptions(max_shard_size=SIZE), ONE)
    assert len(shards(one)) > 4
    judge(one)


def test_a_bank_above_the_largest_file_of_the_hub_is_written_in_shards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.bank.shards.LARGEST_FILE", 100_000)
    bank = make_bank(folder, NAMES)
    assert len(shards(bank)) > 2
    convert(bank, folder / "one.randes", single_file=True)
    assert not (folder / "one.randes.d").exists()


def test_converting_forth_and_back_gives_the_same_bytes(folder: Path) -> None:
    many = sharded(folder, *NAMES)
    before = everything(many)
    one = folder / "one.randes"
    convert(many, one, single_file=True)
    convert(one, many, max_shard_size=SIZE, force=True)
    assert everything(many) == before
