"""Dry runs tell the bytes of banks in shards, index and all; and of edits in one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import PackOptions, TaskInput, add, convert, pack, remove, seal
from randes_cli.specs import EditOptions
from tests.checkpoints import Packer, perturbed, random_state, save
from tests.life.models import ONE

SHAPES = {
    "embed.weight": [100, 48],
    **{f"layers.{n}.weight": [64, 48] for n in range(3)},
    "norm.weight": [48],
    "head.bias": [7],
}


def inputs(folder: Path) -> tuple[str, list[TaskInput]]:
    base = random_state(SHAPES, seed=1)
    tasks = {f"t{n}": perturbed(base, seed=n) for n in range(4)}
    tasks["t1"]["own.weight"] = base["embed.weight"][:9].double()
    tasks["t2"] = {**tasks["t2"], "head.bias": base["head.bias"]}
    source = str(save(base, folder / "base.safetensors"))
    return source, Packer(folder).inputs(tasks)


def size(bank: Path) -> int:
    beside = bank.with_name(f"{bank.name}.d")
    files = [bank, *(beside.iterdir() if beside.is_dir() else ())]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("bits", [16, 8, 3])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("most", [None, 1000, 20_000, 10**9])
def test_a_bank_is_as_large_as_it_was_said_to_become(
    tmp_path: Path, bits: int, groups: int, most: int | None
) -> None:
    base, tasks = inputs(tmp_path)
    bank = tmp_path / "bank.randes"
    options = PackOptions(bits=bits, groups=groups, max_shard_size=most)
    told = pack(base, tasks[:3], bank, options, ONE, dry_run=True)
    made = pack(base, tasks[:3], bank, options, ONE)
    assert told.bank_bytes == made.bank_bytes == size(bank)
    key = ("groups", "bits", "share", "bank_bytes")
    rows = [[[getattr(row, k) for k in key] for row in one.alternatives] for one in (told, made)]
    assert rows[0] == rows[1]
    dry, wet = EditOptions(dry_run=True), EditOptions()
    expected = add(bank, tasks[3:], dry, ONE).bytes_after
    assert expected == add(bank, tasks[3:], wet, ONE).bytes_after == size(bank)
    if bits > 4:
        expected = remove(bank, ["t1"], dry, ONE).bytes_after
        assert expected == remove(bank, ["t1"], wet, ONE).bytes_after == size(bank)
    cut = tmp_path / "cut.randes"
    expected = seal(bank, cut, 2, ONE, dry_run=True, max_shard_size=2000).bytes_after
    assert expected == seal(bank, cut, 2, ONE, max_shard_size=2000).bytes_after == size(cut)
    expected = seal(bank, None, 2, ONE, dry_run=True).bytes_after
    assert expected == seal(bank, None, 2, ONE).bytes_after == size(bank)


@pytest.mark.parametrize("most", [1000, 20_000])
def test_a_bank_becomes_as_many_shards_as_it_was_said_to(tmp_path: Path, most: int) -> None:
    base, tasks = inputs(tmp_path)
    bank, out = tmp_path / "bank.randes", tmp_path / "out.randes"
    pack(base, tasks, bank, PackOptions(bits=4), ONE)
    told = convert(bank, out, max_shard_size=most, dry_run=True)
    made = convert(bank, out, max_shard_size=most)
    assert (told.bytes_after, told.files) == (made.bytes_after, made.files)
    assert made.bytes_after == size(out)
    told = convert(out, bank, single_file=True, dry_run=True)
    assert told.bytes_after == bank.stat().st_size and told.files == 1
