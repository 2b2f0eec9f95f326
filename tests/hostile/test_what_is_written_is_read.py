"""Nothing that randes writes is refused by randes: options, inputs and edits at their limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from randes_cli import PackOptions, RunOptions, TaskInput, Transform, TuneOptions, pack, tune
from randes_cli.build.edit import add, remove
from randes_cli.build.seal import seal
from randes_cli.cli.main import run
from randes_cli.errors import MismatchError, RandesError, UsageError
from randes_cli.files import bank_writer
from randes_cli.files.bank import BankFile
from randes_cli.files.manifest import encode
from randes_cli.ops.verify import verify
from randes_cli.specs import EditOptions, Rest, Shuffle, Signs
from tests.hostile.small import (
    contents,
    forge,
    forged_manifest,
    make_small_bank,
    write_small_family,
)

ONE = RunOptions(threads=1)


def task(folder: Path, name: str, **more: Any) -> TaskInput:
    return TaskInput(name, folder / f"{name}.safetensors", **more)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return write_small_family(tmp_path)


def sound(path: Path) -> bool:
    with BankFile(path) as bank:
        return verify(bank, ONE).sound


WHOLE = st.one_of(
    st.integers(-3, 20), st.sampled_from([2**e + d for e in (20, 31, 32, 63, 64) for d in (-1, 0)])
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.sampled_from([16, 8, 4, 1, 12, 0, True]),
        "seed": WHOLE,
        "groups": st.one_of(st.integers(-1, 3), st.sampled_from([2**20 + 1])),
        "capacity": WHOLE,
        "steps": st.dictionaries(
            st.sampled_from(["left", "wte.weight", "ghost"]), st.integers(-130, 130)
        ),
        "widths": st.dictionaries(
            st.sampled_from(["left", "ghost"]), st.sampled_from([8, 16, 4, 0])
        ),
    },
)
TRANSFORMS = st.fixed_dictionaries(
    {},
    optional={
        "shuffle": st.sampled_from([*Shuffle, "random", "none", "riffle"]),
        "signs": st.sampled_from([*Signs, "column", "spiral"]),
        "rest": st.sampled_from([*Rest, "own", "lost"]),
        "every": WHOLE,
        "targets": st.one_of(
            st.sampled_from(["all", "attn", "h", "(", "\x1b", "é", "\ud800", "a\nb"]),
            st.text(max_size=4),
        ),
    },
)
TASKS = st.fixed_dictionaries({}, optional={"index": WHOLE, "group": st.one_of(WHOLE, st.none())})


@settings(max_examples=150, deadline=None)
@given(options=OPTIONS, transform=TRANSFORMS, placed=TASKS, grid=st.lists(st.floats(), max_size=3))
def test_a_bank_is_written_and_opens_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    options: dict[str, Any],
    transform: dict[str, Any],
    placed: dict[str, Any],
    grid: list[float],
) -> None:
    folder = write_small_family(tmp_path_factory.mktemp("drawn"))
    out = folder / "out.randes"
    if placed.get("group") is not None and 20 < placed["group"] < 2**20:
        placed["group"] = 19  # a header of 2^20 groups is a matter of its own
    try:
        chosen = PackOptions(transform=Transform(**transform), **options)
        tasks = [task(folder, "a", **placed), task(folder, "b")]
        pack(folder / "base.safetensors", tasks, out, chosen, ONE)
    except RandesError as error:
        assert isinstance(error, (UsageError, MismatchError))
        assert not out.exists()
        return
    assert sound(out)
    for edit in (
        lambda: tune(out, lambda path, name: 1.0, TuneOptions(tuple(grid)), ONE),
        lambda: add(out, [TaskInput("c", folder / "b.safetensors")], run=ONE),
        lambda: remove(out, ["b"], run=ONE),
    ):
        before = out.read_bytes()
        try:
            edit()
        except (UsageError, MismatchError):
            assert out.read_bytes() == before
        assert sound(out)


#: The routes that once gave a bank that nothing could open.
REFUSED: dict[str, Callable[[Path], list[str]]] = {
    "a λ of two million": lambda bank: [
        *("tune", str(bank), "--evaluate", "sh -c 'echo 1' {checkpoint}", "--grid", "2000000")
    ],
    "group 8,000,000": lambda bank: [
        *(
            "pack",
            str(bank.parent / "base.safetensors"),
            f"{bank.parent / 'a.safetensors'}@8000000",
        ),
        *("-o", str(bank), "--force"),
    ],
    "a capacity of three milliards": lambda bank: [
        *("pack", str(bank.parent / "base.safetensors"), str(bank.parent / "a.safetensors")),
        *("-o", str(bank), "--force", "--bits", "8", "--capacity", "3000000000"),
    ],
    "targets that clear a terminal": lambda bank: [
        *("pack", str(bank.parent / "base.safetensors"), str(bank.parent / "a.safetensors")),
        *("-o", str(bank), "--force", "--targets", "h\x1b[2J"),
    ],
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_beyond_the_limits_are_refused_and_the_bank_stays(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = make_small_bank(tmp_path)
    before = bank.read_bytes()
    assert run(REFUSED[case](bank)) == 2
    assert bank.read_bytes() == before
    assert capsys.readouterr().err.count("\n") == 1


def test_the_last_index_can_be_packed_and_nothing_added_after_it(family: Path) -> None:
    out = family / "last.randes"
    pack(family / "base.safetensors", [task(family, "a", index=2**31 - 1)], out, run=ONE)
    before = out.read_bytes()
    with pytest.raises(MismatchError, match="no index is left"):
        add(out, [task(family, "b")], run=ONE)
    assert out.read_bytes() == before and sound(out)


@pytest.mark.parametrize(
    "said", ["foo\nbar", "a\0b", "x" * 5000, "", "/home/someone/base", "..", "C:\\models\\base"]
)
def test_what_an_adapter_says_of_its_base_is_recorded_as_one_clean_line(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for here in ("one", "another"):
        folder = tmp_path / here / "adapter"
        folder.mkdir(parents=True)
        tensors = {
            f"base_model.model.q.lora_{kind}.weight": np.ones(shape, np.float32)
            for kind, shape in (("A", (2, 8)), ("B", (8, 2)))
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}
        (folder / "adapter_config.json").write_text(
            json.dumps({**config, "base_model_name_or_path": said})
        )
        monkeypatch.chdir(tmp_path / here)
        out = tmp_path / here / "out.randes"
        assert run(["pack", "--adapters", f"a={folder}", f"b={folder}", "-o", str(out)]) == 0
        with BankFile(out) as bank:
            recorded = bank.manifest.base.source
        made.append(out.read_bytes())
        assert len(recorded) <= 4096 and "someone" not in recorded and "models" not in recorded
    assert made[0] == made[1]


def test_more_names_than_a_header_holds_are_refused_before_a_byte(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_writer, "MOST_HEADER", 300)
    with pytest.raises(UsageError, match="a header of"):
        pack(family / "base.safetensors", [task(family, "a")], family / "o.randes", run=ONE)
    monkeypatch.undo()
    monkeypatch.setattr(bank_writer, "MOST_MANIFEST", 300)
    with pytest.raises(UsageError, match="a manifest of more than"):
        pack(family / "base.safetensors", [task(family, "a")], family / "o.randes", run=ONE)
    assert not (family / "o.randes").exists()


def test_what_the_reader_refuses_is_never_committed(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever slips past the options is met by the reader's own decoder."""
    real = encode
    monkeypatch.setattr(
        bank_writer, "encode", lambda manifest: real(manifest).replace(b'"bits":16', b'"bits":12')
    )
    with pytest.raises(UsageError, match="could not be read again: manifest: bits is 12"):
        pack(family / "base.safetensors", [task(family, "a")], family / "o.randes", run=ONE)
    assert sorted(path.suffix for path in family.iterdir()) == [".safetensors"] * 3


BAD_OPTIONS: dict[str, Callable[[], object]] = {
    "--capacity": lambda: PackOptions(capacity=-3),
    "--threads": lambda: RunOptions(threads=-3),
    "unknown device": lambda: RunOptions(device="tpu"),
    "--max-memory": lambda: RunOptions(max_memory=0),
    "its group": lambda: TaskInput("x", "y", group=-1),
    "index": lambda: TaskInput("x", "y", index=2**31),
    "--seed": lambda: PackOptions(seed=10**5000),
    "--signs": lambda: Transform(signs="spiral"),  # type: ignore[arg-type]
    "--every": lambda: Transform(every=0),
    "--base": lambda: PackOptions(base_storage="nowhere"),  # type: ignore[arg-type]
    "--wait": lambda: EditOptions(wait=float("nan")),
    "--grid": lambda: TuneOptions((float("inf"),)),
    "steps": lambda: PackOptions(steps={"w": 500}),
    "widths": lambda: PackOptions(widths={"w": 4}),
    "a Hub id": lambda: TaskInput("x", 3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_an_option_that_cannot_be_is_a_usage_error_that_names_it(option: str) -> None:
    with pytest.raises(UsageError, match=option):
        BAD_OPTIONS[option]()


def test_words_for_choices_are_taken_as_the_choices_themselves(family: Path) -> None:
    transform = Transform(shuffle="random", signs="column", rest="sum")  # type: ignore[arg-type]
    assert transform == Transform.from_preset("srsf")
    assert transform.shuffle is Shuffle.random and transform.rest is Rest.sum


def _noted(manifest: Any) -> None:
    places = [manifest, manifest["base"], manifest["transform"], manifest["stats"]]
    for place in [*places, *manifest["tasks"], *manifest.get("sealed", {}).values()]:
        place["note"] = {"by": ["me", 1.5, None]}


def _notes(path: Path) -> int:
    """How many objects of a bank's manifest have the note."""
    with BankFile(path) as bank:
        text = json.dumps(bank.manifest.to_json())
    return text.count('"note": {"by": ["me", 1.5, null]}')


def test_unknown_optional_fields_survive_every_rewrite_at_every_level(tmp_path: Path) -> None:
    write_small_family(tmp_path)
    rng = np.random.default_rng(1)
    base = {"w": rng.standard_normal((64, 64), np.float32)}
    for name in ("base", "a", "b", "c"):
        state = {"w": base["w"] + rng.standard_normal((64, 64), np.float32)}
        save_file(state, tmp_path / f"{name}.st")
    inputs = [TaskInput(name, tmp_path / f"{name}.st", group=n) for n, name in enumerate("ab")]
    plain = tmp_path / "plain.randes"
    pack(tmp_path / "base.st", inputs, plain, run=ONE)
    bank = forged_manifest(plain, tmp_path / "noted.randes", _noted)
    assert _notes(bank) == 6
    add(bank, [TaskInput("c", tmp_path / "c.st", group=1)], run=ONE)
    tune(bank, lambda path, name: 1.0, TuneOptions((0.5, 1.0)), ONE)
    assert _notes(bank) == 6
    remove(bank, ["c"], run=ONE)
    assert _notes(bank) == 6
    seal(bank, None, 4, ONE)
    assert _notes(bank) == 6
    sealed = forged_manifest(bank, tmp_path / "sealed.randes", _noted)
    assert _notes(sealed) == 8
    tune(sealed, lambda path, name: 1.0, TuneOptions((0.25,)), ONE)
    assert _notes(sealed) == 8 and sound(sealed)


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


def test_a_bank_of_a_million_groups_is_edited_for_those_that_hold_tasks(family: Path) -> None:
    out = family / "many.randes"
    options = PackOptions(groups=2**20)
    pack(family / "base.safetensors", [task(family, "a"), task(family, "b")], out, options, ONE)
    add(out, [TaskInput("c", family / "b.safetensors", group=2**20 - 1)], run=ONE)
    add(out, [TaskInput("d", family / "a.safetensors")], run=ONE)
    remove(out, ["a"], run=ONE)
    assert sound(out) and out.stat().st_size < 20_000
    with BankFile(out) as bank:
        assert [t.group for t in bank.manifest.tasks] == [1, 2**20 - 1, 2]


def test_the_passing_bank_of_few_bits_is_there_until_it_is_sealed(
    wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks for files that dead writers left must not take it for one."""
    from randes_cli.build.copies import copy_tensors
    from randes_cli.files.atomic import remove_stale

    seen = []
    real = copy_tensors

    def copying(*arguments: Any) -> None:
        old = arguments[1]
        remove_stale(wide / "new.randes")
        seen.append(old.path.exists())
        real(*arguments)

    monkeypatch.setattr("randes_cli.build.seal.copy_tensors", copying)
    inputs = [TaskInput(name, wide / f"{name}.st") for name in "ab"]
    pack(wide / "base.st", inputs, wide / "new.randes", PackOptions(bits=2), ONE)
    assert seen == [True] and sound(wide / "new.randes")
    assert not [path for path in wide.iterdir() if path.name.startswith(".")]
