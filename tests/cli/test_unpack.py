"""randes unpack"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.cli.conftest import Result


def test_one_task_comes_back_with_its_names_shapes_and_dtypes(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    out = family / "back.safetensors"
    assert randes("unpack", bank, "--task", "b", "-o", out).code == 0
    given, got = load_file(family / "b.safetensors"), load_file(out)
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {
        k: (v.shape, v.dtype) for k, v in given.items()
    }
    assert torch.equal(got["head.weight"], given["head.weight"])
    assert torch.equal(got["ids"], given["ids"])


def test_lambda_zero_gives_the_base(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    out = family / "zero.safetensors"
    assert randes("unpack", bank, "--task", "a", "--lambda", 0, "-o", out).code == 0
    base = load_file(family / "base.safetensors")
    for name, tensor in load_file(out).items():
        assert torch.equal(tensor, base[name])


def test_shards_come_with_an_index_that_lists_every_tensor(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    whole, parts = family / "whole", family / "parts"
    assert randes("unpack", bank, "-t", "a", "-o", whole).code == 0
    assert randes("unpack", bank, "-t", "a", "-o", parts, "--max-shard-size", "30kB").code == 0
    index = json.loads((parts / "a.safetensors.index.json").read_text())
    shards = {name: load_file(parts / name) for name in set(index["weight_map"].values())}
    assert len(shards) > 1
    for name, tensor in load_file(whole / "a.safetensors").items():
        assert torch.equal(shards[index["weight_map"][name]][name], tensor)
    total = sum(t.nbytes for shard in shards.values() for t in shard.values())
    assert index["metadata"]["total_size"] == total


def test_dtype_converts_floats_only(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    out = family / "half.safetensors"
    assert randes("unpack", bank, "-t", "a", "--dtype", "F16", "-o", out).code == 0
    got = load_file(out)
    assert got["wte.weight"].dtype == torch.float16
    assert got["ids"].dtype == torch.int64


def test_refusals(bank: Path, family: Path, randes: Callable[..., Result]) -> None:
    for words, code, said in (
        (["--task", "zz"], 5, "no task 'zz'; it has a, b"),
        ([], 2, "--task NAME"),
        (["--all", "-o", family / "one.safetensors"], 2, "name a folder"),
        (["--task", "a", "--dtype", "I8"], 2, "--dtype"),
        (["--task", "a", "--lambda", "nan"], 2, "--lambda"),
    ):
        result = randes("unpack", bank, *words)
        assert (result.code, len(result.err.strip().splitlines())) == (code, 1), result.err
        assert said in result.err


def test_a_checkpoint_is_not_a_bank(family: Path, randes: Callable[..., Result]) -> None:
    result = randes("unpack", family / "a.safetensors", "--all")
    assert result.code == 3
    assert "not a bank" in result.err


def test_the_bytes_that_are_read_are_those_of_the_stored_tensors(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    sealed = family / "sealed.randes"
    assert randes("seal", bank, "--bits", 2, "-o", sealed).code == 0
    for stored in (bank, sealed):
        parts = {name: tensor.nbytes for name, tensor in load_file(stored).items()}
        for task in "ab":
            starts = ("base/", "sum/0/", "scale/0/", f"own/{task}/")
            true = sum(size for name, size in parts.items() if name.startswith(starts))
            words = ("unpack", stored, task, "-o", family / f"{stored.stem}-{task}", "--json")
            for more in (["--dry-run"], []):
                said = randes(*words, *more).json
                assert (said["read_bytes"], said["tasks"][0]["read_bytes"]) == (true, true)


def test_a_dry_run_says_that_it_only_would(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    sealed, cut = family / "s.randes", family / "c.randes"
    for words in (["unpack", bank, "a"], ["seal", bank, "--bits", 2], ["convert", bank]):
        out = {"unpack": family / "new", "seal": sealed, "convert": cut}[str(words[0])]
        more = ["--max-shard-size", "20KB"] if words[0] == "convert" else []
        would, does = (randes(*words, *more, "-o", out, *dry) for dry in (["--dry-run"], []))
        assert "would take" in would.out + would.err
        assert "would" not in does.out + does.err.partition("\nread")[0].replace("would make", "")
