"""Whole folders: what went in as a folder comes back as one that loads as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import file_key
from randes_cli.ops.verify import verify
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import OpenOptions, PackOptions, TaskInput
from tests.read.folders import PLAIN, RUN, folder, names, weights


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of a folder with a tokenizer, a folder without a config, and a bare file."""
    base = folder(tmp_path / "base", 0, **{"tokenizer.json": "[1]"})
    cars = folder(tmp_path / "cars", 1, **{"config.json": '{"a": 1}', "tokenizer.json": "[1]"})
    bare = folder(tmp_path / "plain", 2, **{"config.json": "gone"})
    (tmp_path / "plain" / "config.json").unlink()
    save_file(weights(3), tmp_path / "file.safetensors")
    file = TaskInput("file", str(tmp_path / "file.safetensors"))
    pack(base.source, [cars, bare, file], tmp_path / "bank.randes")
    return tmp_path / "bank.randes"


def test_each_content_is_stored_once_under_its_digest(bank: Path) -> None:
    with BankFile(bank) as file:
        stored = [key for key in file.header.tensors if key.startswith("files/")]
        cars, plain, bare = file.manifest.tasks
        assert len(stored) == len({"{}", "[1]", '{"a": 1}'})
        assert cars.files["tokenizer.json"] == file.manifest.base.files["tokenizer.json"]
        assert file.read_whole(file_key(cars.files["config.json"])).tobytes() == b'{"a": 1}'
        assert plain.files == file.manifest.base.files
        assert (bare.files, bare.layout) == ({}, {})


def test_a_folder_comes_back_with_its_side_files_and_a_file_as_a_file(
    bank: Path, tmp_path: Path
) -> None:
    unpack(bank, None, tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == [
        "cars/config.json",
        "cars/model.safetensors",
        "cars/tokenizer.json",
        "file.safetensors",
        "plain/config.json",
        "plain/model.safetensors",
        "plain/tokenizer.json",
    ]
    assert (tmp_path / "out" / "cars" / "config.json").read_text() == '{"a": 1}'
    assert (tmp_path / "out" / "plain" / "config.json").read_text() == "{}"


def test_a_single_folder_task_becomes_the_output_folder_itself(bank: Path, tmp_path: Path) -> None:
    (report,) = unpack(bank, ["cars"], tmp_path / "deep" / "out", PLAIN, RUN)
    assert names(tmp_path / "deep" / "out") == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert report.path == str(tmp_path / "deep" / "out")
    assert sorted(Path(f).name for f in report.files) == names(tmp_path / "deep" / "out")


def test_a_single_file_task_goes_into_the_output_folder(bank: Path, tmp_path: Path) -> None:
    unpack(bank, ["file"], tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == ["file.safetensors"]


def test_without_an_output_tasks_go_here_under_their_names(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    unpack(bank, ["cars"], None, PLAIN, RUN)
    unpack(bank, ["file"], None, PLAIN, RUN)
    assert names(tmp_path / "here") == [
        "cars/config.json",
        "cars/model.safetensors",
        "cars/tokenizer.json",
        "file.safetensors",
    ]


@pytest.mark.parametrize("suffix", ["safetensors", "st"])
def test_a_named_file_is_bare_even_of_a_folder_task(
    bank: Path, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "out").mkdir()
    unpack(bank, ["cars"], tmp_path / "out" / f"x.{suffix}", PLAIN, RUN)
    assert names(tmp_path / "out") == [f"x.{suffix}"]
    with pytest.raises(UsageError, match="a file for one task"):
        unpack(bank, None, tmp_path / "out" / f"y.{suffix}", PLAIN, RUN)


def test_safetensors_only_leaves_side_files_out_on_either_way(bank: Path, tmp_path: Path) -> None:
    unpack(bank, ["cars"], tmp_path / "out", UnpackOptions(safetensors_only=True), RUN)
    assert names(tmp_path / "out") == ["model.safetensors"]
    options = PackOptions(opening=OpenOptions(safetensors_only=True))
    cars = TaskInput("cars", str(tmp_path / "cars"))
    pack(str(tmp_path / "base"), [cars], tmp_path / "small.randes", options)
    unpack(tmp_path / "small.randes", ["cars"], tmp_path / "small", PLAIN, RUN)
    assert names(tmp_path / "small") == ["model.safetensors"]


def test_nothing_is_written_when_anything_is_in_the_way(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "plain").mkdir(parents=True)
    (tmp_path / "out" / "plain" / "config.json").write_text("mine")
    with pytest.raises(UsageError, match=r"plain/config.json: exists"):
        unpack(bank, None, tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == ["plain/config.json"]
    unpack(bank, None, tmp_path / "out", UnpackOptions(force=True), RUN)
    assert (tmp_path / "out" / "plain" / "config.json").read_text() == "{}"


def test_other_weights_that_would_be_loaded_instead_are_in_the_way(
    bank: Path, tmp_path: Path
) -> None:
    force = UnpackOptions(force=True, shard_bytes=600)
    unpack(bank, ["cars"], tmp_path / "out", PLAIN, RUN)
    with pytest.raises(UsageError, match=r"model\.safetensors: would be loaded"):
        unpack(bank, ["cars"], tmp_path / "out", force, RUN)
    (tmp_path / "out" / "model.safetensors").unlink()
    unpack(bank, ["cars"], tmp_path / "out", force, RUN)
    assert "model.safetensors.index.json" in names(tmp_path / "out")
    with pytest.raises(UsageError, match=r"index\.json: would be loaded"):
        unpack(bank, ["cars"], tmp_path / "out", UnpackOptions(force=True), RUN)


def test_the_state_of_a_policys_steps_comes_back(tmp_path: Path) -> None:
    """LeRobot's: what inputs are normalised by, in a small safetensors file of its own."""
    base, task = folder(tmp_path / "base", 0), folder(tmp_path / "task", 1)
    name = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    for one, figure in ((base, 0.0), (task, 2.5)):
        save_file({"observation.state.mean": np.full(6, figure)}, Path(one.source) / name)
    made = pack(base.source, [task], tmp_path / "b.randes", PackOptions(), RUN)
    assert not made.tasks[0].notes
    unpack(tmp_path / "b.randes", ["task"], tmp_path / "out", PLAIN, RUN)
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "task" / name).read_bytes()


def test_a_damaged_side_file_is_not_written(bank: Path, tmp_path: Path) -> None:
    with BankFile(bank) as file:
        key = file_key(file.manifest.tasks[0].files["config.json"])
        start = file.header.starts[key]
    data = bytearray(bank.read_bytes())
    data[start] ^= 1
    bank.write_bytes(data)
    with pytest.raises(BankDamaged, match=key):
        unpack(bank, ["cars"], tmp_path / "out", PLAIN, RUN)
    assert "config.json" not in names(tmp_path / "out")
    with BankFile(bank) as file:
        assert verify(file, RUN).hurt == {"cars": (key,)}


def test_side_files_come_and_go_with_tasks(bank: Path, tmp_path: Path) -> None:
    def stored() -> set[str]:
        with BankFile(bank) as file:
            return {key for key in file.header.tensors if key.startswith("files/")}

    before = stored()
    more = folder(tmp_path / "more", 5, **{"config.json": "{}", "vocab.txt": "a"})
    add(bank, [more])
    assert len(stored() - before) == 1
    unpack(bank, ["more"], tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == ["config.json", "model.safetensors", "vocab.txt"]
    remove(bank, ["more"])
    assert stored() == before


def test_stale_shards_are_in_the_way(bank: Path, tmp_path: Path) -> None:
    cut = UnpackOptions(shard_bytes=600, force=True)
    unpack(bank, ["cars"], tmp_path / "out", cut, RUN)
    with pytest.raises(UsageError, match=r"model-0000\d-of-00003\.safetensors: would be loaded"):
        unpack(bank, ["cars"], tmp_path / "out", UnpackOptions(shard_bytes=1200, force=True), RUN)


def test_a_task_named_twice_is_written_once(bank: Path, tmp_path: Path) -> None:
    reports = unpack(bank, ["cars", "cars"], tmp_path / "out", PLAIN, RUN)
    assert [report.task for report in reports] == ["cars"]


def test_a_dry_run_refuses_what_the_run_refuses(bank: Path, tmp_path: Path) -> None:
    unpack(bank, ["cars"], tmp_path / "out", PLAIN, RUN)
    with pytest.raises(UsageError, match="exists"):
        unpack(bank, ["cars"], tmp_path / "out", PLAIN, RUN, dry_run=True)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "x.ckpt"])
def test_the_name_of_a_pickle_is_no_folder(name: str, bank: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unpack writes safetensors; name a file"):
        unpack(bank, ["cars"], tmp_path / name, PLAIN, RUN)
    assert not (tmp_path / name).exists()


def test_a_dry_run_writes_nothing_and_names_every_file(bank: Path, tmp_path: Path) -> None:
    reports = unpack(bank, None, tmp_path / "out", PLAIN, RUN, dry_run=True)
    assert not (tmp_path / "out").exists()
    unpack(bank, None, tmp_path / "out", PLAIN, RUN)
    said = [Path(file) for report in reports for file in report.files]
    assert sorted(said) == sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_other_files_in_the_folder_that_is_written_to_are_told_of(
    bank: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("adapter_config.json", ".hidden", "tokenizer.json"):
        (out / name).write_text("{}")
    (done,) = unpack(bank, "plain", out, UnpackOptions(force=True), RUN)
    said = f"{out} has other files, too (adapter_config.json), beside what was written"
    assert said in done.notes
    for one in unpack(bank, None, out, PLAIN, RUN):  # each in a folder of its own
        assert not any("other files" in note for note in one.notes)
    (again,) = unpack(bank, "plain", tmp_path / "fresh", PLAIN, RUN)
    assert not any("other files" in note for note in again.notes)
