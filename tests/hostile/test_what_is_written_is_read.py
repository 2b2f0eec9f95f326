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
from randes_cli.build.seal.seal import seal
from randes_cli.cli.main import run
from randes_cli.errors import MismatchError, RandesError, UsageError
from randes_cli.files.bank import output as bank_output
from randes_cli.files.bank import writer as bank_writer
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import encode
from randes_cli.specs import EditOptions, Rest, Shuffle, Signs
from tests.hostile.small import (
    ONE,
    forged_manifest,
    make_small_bank,
    sound,
    write_small_family,
)


def task(folder: Path, name: str, **more: Any) -> TaskInput:
    return TaskInput(name, folder / f"{name}.safetensors", **more)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return write_small_family(tmp_path)


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
    monkeypatch.setattr(bank_output, "MOST_MANIFEST", 300)
    with pytest.raises(UsageError, match="a manifest of more than"):
        pack(family / "base.safetensors", [task(family, "a")], family / "o.randes", run=ONE)
    assert not (family / "o.randes").exists()


def test_what_the_reader_refuses_is_never_committed(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever slips past the options is met by the reader's own decoder."""
    real = encode
    monkeypatch.setattr(
        bank_output, "encode", lambda manifest: real(manifest).replace(b'"bits":16', b'"bits":12')
    )
    with pytest.raises(UsageError, match="could not be read again: manifest: bits is 12"):
        pack(family / "base.safetensors", [task(family, "a")], family / "o.randes", run=ONE)
    assert sorted(path.suffix for path in family.iterdir()) == [".safetensors"] * 3


BAD_OPTIONS: dict[str, Callable[[], object]] = {
    "--capacity": lambda: PackOptions(capacity=-3),
    "--threads": lambda: RunOptions(threads=-3),
    "--device must be one of": lambda: RunOptions(device="tpu"),
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
