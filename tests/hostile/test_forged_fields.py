"""Forged fields, statistics and values: damage with a name, in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import TaskInput, pack
from randes_cli.build.seal.seal import seal
from randes_cli.cli.main import run
from randes_cli.errors import BankDamaged, printable
from randes_cli.files.bank.checks import check_agreement
from randes_cli.files.bank.file import BankFile
from randes_cli.files.digests import digest
from randes_cli.specs import TensorInfo
from randes_cli.stats.lengths import bank_lengths, stored_lengths
from tests.hostile.small import (
    ONE,
    contents,
    forge,
    forged_manifest,
    make_small_bank,
)

HUGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "a group of 5,000 digits": (
        lambda m: m.update(sealed={"9" * 5000: {"bits": 4, "layout": "levels/1"}}),
        "manifest: sealed['999",
    ),
    "bits of 400 digits": (
        lambda m: m.update(sealed={"0": {"bits": 10**400, "layout": "levels/1"}}),
        "manifest: sealed[0].bits is 1000",
    ),
    "a seal that is no object": (lambda m: m.update(sealed={"0": 3}), "manifest: sealed[0] is not"),
    "a score of 400 digits": (lambda m: m.update(tuning={"a": [[1, 10**400]]}), "tuning['a']"),
    "a score of 1e308": (lambda m: m.update(tuning={"a": [[1, 1e308]]}), "tuning['a']"),
    "a λ of 1e9": (lambda m: m.update(tuning={"a": [[1e9, 1]]}), "tuning['a']"),
    "a curve of nothing": (lambda m: m.update(tuning={"a": []}), "tuning['a']"),
    "a source of a megabyte": (lambda m: m["base"].update(source="x" * 2**20), "base.source has"),
    "no cells": (lambda m: m["stats"].update(cells=[]), "stats.cells has no cell for"),
    "a cell less": (
        lambda m: m["stats"].update(cells=m["stats"]["cells"][1:]),
        "stats.cells has no cell for",
    ),
    "a name of 5,000 letters": (
        lambda m: m["tasks"][0]["own"].update({"x" * 5000: ["F32", [1]]}),
        "tasks[0].own['xxx",
    ),
    "an index forgotten twice": (
        lambda m: m.update(next_index=9, forgotten=[[5, 0], [5, 0]]),
        "manifest: forgotten has an index twice",
    ),
    "3,000 files": (
        lambda m: m["tasks"][0].update(files={f"{n}.json": "0" * 32 for n in range(3000)}),
        "manifest: tasks[0].files has more names",
    ),
    "a coefficient of 1e7": (
        lambda m: m["tasks"][0].update(coefficient=10**7),
        "tasks[0].coefficient is out of range",
    ),
}


@pytest.mark.parametrize("case", HUGE)
def test_boundless_values_are_damage_with_the_field_named(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = HUGE[case]
    path = forged_manifest(make_small_bank(tmp_path), tmp_path / "forged.randes", change)
    for words in (["inspect"], ["verify"], ["seal", "--bits", "4", "--in-place"]):
        assert run([words[0], str(path), *words[1:]]) == 6
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1 and len(said) < 500


def test_what_a_manifest_counts_takes_no_time_of_its_own(tmp_path: Path) -> None:
    bank = make_small_bank(tmp_path)  # of layers that are shuffled
    forgotten = [[n, n] for n in range(2, 40_000)]
    many = {"groups": 2**20, "next_index": 40_000, "forgotten": forgotten}
    path = forged_manifest(bank, tmp_path / "many.randes", lambda m: m.update(many))
    started = time.process_time()
    with BankFile(path) as opened:
        lengths = bank_lengths(opened.manifest, stored_lengths(opened))
    assert time.process_time() - started < 1
    assert lengths.others == {}


def test_a_bank_that_superposes_nothing_has_no_tables_of_many_tasks(tmp_path: Path) -> None:
    with BankFile(make_small_bank(tmp_path)) as bank:
        made, tensors = bank.manifest, bank.header.tensors
    exact = replace(made.transform, exact=frozenset(made.base.tensors))
    for count, said in ((1025, "more tasks than"), (1024, "has another shape")):
        tasks = made.tasks[:1] * count
        with pytest.raises(BankDamaged, match=said):
            check_agreement(replace(made, transform=exact, cells=(), tasks=tasks), tensors)


def test_one_content_is_no_gigabytes_of_side_files(tmp_path: Path) -> None:
    tensors, data, manifest = contents(make_small_bank(tmp_path))
    content = bytes(2**20)
    key = f"files/{digest(content).hex()}"
    tensors[key], data[key] = TensorInfo(key, "U8", (len(content),)), content
    task = manifest["tasks"][0]
    for count, is_damage in ((512, False), (513, True)):
        task["files"] = {f"{n}.json": key.removeprefix("files/") for n in range(count)}
        path = forge(tmp_path / "files.randes", tensors, data, json.dumps(manifest).encode())
        with pytest.raises(BankDamaged, match="side files") if is_damage else nullcontext():
            BankFile(path).close()


def test_what_a_forged_task_would_be_unpacked_to_is_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, data, manifest = contents(make_small_bank(tmp_path))
    content = digest(b"{}").hex()
    key = f"files/{content}"
    tensors[key], data[key] = TensorInfo(key, "U8", (2,)), b"[]"
    for layout, said in (
        ({"unet": "unet/model.safetensors"}, "no weight file for tensor '"),
        ({"": "model.safetensors"}, f"tensor '{key}' is damaged"),
    ):
        manifest["tasks"][0].update(layout=layout, files={"config.json": content})
        path = forge(tmp_path / "forged.randes", tensors, data, json.dumps(manifest).encode())
        assert run(["unpack", str(path), "a", "-o", str(tmp_path / "out")]) == 6
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_whole_number_is_a_coefficient_as_well(tmp_path: Path) -> None:
    bank = make_small_bank(tmp_path)
    path = forged_manifest(
        bank, tmp_path / "whole.randes", lambda m: m["tasks"][0].update(coefficient=1)
    )
    with BankFile(path) as opened:
        assert opened.manifest.tasks[0].coefficient == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1e308])
@pytest.mark.parametrize("key", ["stats/norms", "stats/gram"])
def test_statistics_that_no_model_has_are_damage_of_their_tensor(
    value: float, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, data, manifest = contents(make_small_bank(tmp_path))
    numbers = np.frombuffer(data[key], np.float64).copy()
    numbers[-1] = value
    data[key] = numbers.tobytes()
    text = json.dumps(manifest).encode()
    path = forge(tmp_path / "forged.randes", tensors, data, text)
    for words in (["inspect"], ["add", str(tmp_path / "b.safetensors")], ["remove", "-t", "a"]):
        assert run([words[0], str(path), *words[1:]]) == 6
        said = capsys.readouterr().err
        assert f"tensor '{key}' has values" in said and said.count("\n") == 1


@pytest.mark.parametrize("digits", [4000, 5000, 100_000])
def test_layer_numbers_of_thousands_of_digits_end_in_one_line(
    digits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"layers.{digit * digits}.w" for digit in "98"]
    base = {name: np.ones((4, 3), np.float32) for name in names}
    save_file(base, tmp_path / "base.safetensors")
    save_file({k: v + 1 for k, v in base.items()}, tmp_path / "a.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("base", "a")]
    words = ["pack", *files, "-o", str(tmp_path / "o.randes"), "--transform", "srsf"]
    assert run(words) == (0 if digits < 4096 else 3)
    said = capsys.readouterr().err
    assert len(said) < 500
    if digits > 4096:
        assert said.count("\n") == 1 and not (tmp_path / "o.randes").exists()


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A live and a sealed bank of one wide tensor, in three dtypes."""
    rng = np.random.default_rng(1)
    for name in ("base", "a", "b"):
        state = {f"w.{kind}": rng.standard_normal((64, 64)).astype(kind) for kind in ("f4", "f2")}
        save_file(state, tmp_path / f"{name}.st")
    inputs = [TaskInput(name, tmp_path / f"{name}.st") for name in "ab"]
    pack(tmp_path / "base.st", inputs, tmp_path / "live.randes", run=ONE)
    seal(tmp_path / "live.randes", tmp_path / "sealed.randes", 4, ONE)
    return tmp_path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("bank", "key", "kind"),
    [
        ("live", "base/w.f4", "f4"),
        ("live", "base/w.f2", "f2"),
        ("sealed", "base/w.f4", "f4"),
        ("sealed", "scale/0/w.f4", "f2"),
        ("sealed", "scale/0/w.f2", "f2"),
    ],
)
def test_forged_values_that_are_no_numbers_are_said_and_not_written(
    bank: str, key: str, kind: str, value: float, wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, data, manifest = contents(wide / f"{bank}.randes")
    numbers = np.frombuffer(data[key], kind).copy()
    numbers[-1] = value
    data[key] = numbers.tobytes()
    path = forge(wide / "forged.randes", tensors, data, json.dumps(manifest).encode())
    out = wide / "out.safetensors"
    assert run(["unpack", str(path), "-t", "a", "-o", str(out)]) == 6
    assert f"tensor '{key}' is damaged" in capsys.readouterr().err and not out.exists()
    words = ["unpack", str(path), "-t", "a", "-o", str(out), "--force", "--saturate", "--json"]
    assert run(words) == 0
    assert key in capsys.readouterr().out
    if key.startswith("scale"):
        assert run(["verify", str(path)]) == 6
        assert key in capsys.readouterr().out


@pytest.mark.parametrize("source", ["x" * 5000, "../base.safetensors"], ids=["long", "outside"])
def test_a_recipe_names_no_file_of_this_machine_that_the_bank_may_not_mean(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inside").mkdir()
    bank = make_small_bank(tmp_path)
    path = tmp_path / "inside" / "forged.randes"
    forged_manifest(bank, path, lambda m: m["base"].update(source=source))
    assert run(["inspect", str(path), "--recipe"]) == 0
    assert "so write where they are: the base, a, b\n" in capsys.readouterr().out


def test_a_source_of_thousands_of_addresses_is_shown_at_once() -> None:
    started = time.process_time()
    for text in ("s3://" + "a://" * 16_000, "a+" * 32_000 + "://", "://a:" * 13_000):
        assert printable(text) == text
    assert time.process_time() - started < 1
