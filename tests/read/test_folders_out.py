"""Whole folders: what went in as a folder comes back as one that loads as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.errors import BankDamaged, MismatchError, UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import file_key
from randes_cli.files.checkpoint import open_checkpoint
from randes_cli.ops.describe import describe
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import OpenOptions, PackOptions, RunOptions, TaskInput

RUN = RunOptions(threads=1)
PLAIN = UnpackOptions()


def weights(seed: int) -> dict[str, np.ndarray]:
    base = np.random.default_rng(0)
    made = {f"layers.{n}.up.weight": base.standard_normal((8, 16), np.float32) for n in range(3)}
    move = np.random.default_rng(seed)
    return {n: w + 0.01 * move.standard_normal(w.shape, np.float32) for n, w in made.items()}


def folder(path: Path, seed: int, **files: str) -> TaskInput:
    path.mkdir()
    save_file(weights(seed), path / "model.safetensors", {"format": "pt"})
    for name, text in {"config.json": "{}", **files}.items():
        (path / name).write_text(text)
    return TaskInput(path.name, str(path))


def names(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


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


def test_code_is_written_only_with_leave_on_both_ways(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", 0)
    task = folder(tmp_path / "task", 1, **{"modeling_x.py": "print()"})
    carry = PackOptions(opening=OpenOptions(trust_remote_code_files=True))
    report = pack(base.source, [task], tmp_path / "without.randes")
    assert report.tasks[0].notes == (
        "left out: modeling_x.py (code, see --trust-remote-code-files)",
    )
    pack(base.source, [task], tmp_path / "with.randes", carry)
    (said,) = unpack(tmp_path / "with.randes", ["task"], tmp_path / "no", PLAIN, RUN)
    assert names(tmp_path / "no") == ["config.json", "model.safetensors"]
    assert said.notes == ("modeling_x.py: code, not written (see --trust-remote-code-files)",)
    leave = UnpackOptions(trust_remote_code_files=True)
    unpack(tmp_path / "with.randes", ["task"], tmp_path / "yes", leave, RUN)
    assert (tmp_path / "yes" / "modeling_x.py").read_text() == "print()"


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


def pipeline(path: Path, seed: int) -> TaskInput:
    for component, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (path / component).mkdir(parents=True)
        save_file(weights(seed), path / component / f"{file}.safetensors")
        (path / component / "config.json").write_text(json.dumps({"part": component}))
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text("{}")
    index = {"_class_name": "P", "scheduler": ["d", "S"], "unet": ["d", "U"]}
    (path / "model_index.json").write_text(json.dumps({**index, "text_encoder": ["t", "T"]}))
    return TaskInput(path.name, str(path))


def test_a_pipeline_comes_back_as_a_pipeline(tmp_path: Path) -> None:
    base, style = pipeline(tmp_path / "base", 0), pipeline(tmp_path / "style", 1)
    pack(base.source, [style], tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["style"], tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == names(tmp_path / "style")
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        back = load_file(tmp_path / "out" / f"{part}.safetensors")
        for name, tensor in weights(1).items():
            assert np.allclose(back[name], tensor, atol=1e-3)
    with pytest.raises(UsageError, match="name a folder"):
        unpack(tmp_path / "bank.randes", ["style"], tmp_path / "x.safetensors", PLAIN, RUN)


def test_what_stays_behind_is_said_recorded_and_said_again(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", 0)
    task = folder(tmp_path / "task", 1, **{"head.pkl": "x", "README.md": "# terms"})
    save_file(weights(3), tmp_path / "task" / "value_head.safetensors")
    left_out = {"head.pkl": "a pickle", "value_head.safetensors": "other weights"}
    line = "left out: head.pkl (a pickle), value_head.safetensors (other weights)"
    report = pack(base.source, [task], tmp_path / "bank.randes")
    assert (report.tasks[0].left_out, report.tasks[0].notes) == (left_out, (line,))
    with BankFile(tmp_path / "bank.randes") as file:
        assert dict(file.manifest.tasks[0].left_out) == left_out
        assert describe(file).tasks[0].left_out == left_out
    (said,) = unpack(tmp_path / "bank.randes", ["task"], tmp_path / "out", PLAIN, RUN)
    assert (said.left_out, said.notes) == (left_out, (f"{line} when it was packed",))
    assert (tmp_path / "out" / "README.md").read_text() == "# terms"


def test_a_config_of_an_adapter_does_not_come_back_beside_a_whole_model(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", 0)
    task = folder(tmp_path / "task", 1, **{"adapter_config.json": "{}"})
    report = pack(base.source, [task], tmp_path / "bank.randes")
    assert "adapter_config.json" in report.tasks[0].left_out
    assert "adapter_config.json" in report.tasks[0].notes[0]
    unpack(tmp_path / "bank.randes", ["task"], tmp_path / "out", PLAIN, RUN)
    assert names(tmp_path / "out") == ["config.json", "model.safetensors"]


def test_a_task_without_a_config_gets_no_model_card_of_the_base(tmp_path: Path) -> None:
    more = {"README.md": "#", "all_results.json": "{}", "LICENSE": "terms"}
    base, task = folder(tmp_path / "base", 0, **more), folder(tmp_path / "task", 1)
    (tmp_path / "task" / "config.json").unlink()
    pack(base.source, [task], tmp_path / "bank.randes")
    add(tmp_path / "bank.randes", [TaskInput("more", task.source)])
    unpack(tmp_path / "bank.randes", None, tmp_path / "out", PLAIN, RUN)
    for name in ("task", "more"):
        assert names(tmp_path / "out" / name) == ["LICENSE", "config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "file", ["consolidated.safetensors", "flux1-dev.safetensors", "weights.00.safetensors", "x.st"]
)
def test_a_weight_file_comes_back_under_its_own_name(file: str, tmp_path: Path) -> None:
    for name, seed in (("base", 0), ("task", 1)):
        folder(tmp_path / name, seed)
        (tmp_path / name / "model.safetensors").rename(tmp_path / name / file)
    pack(str(tmp_path / "base"), [TaskInput("t", str(tmp_path / "task"))], tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", None, tmp_path / "out", PLAIN, RUN)  # all: a folder each
    assert names(tmp_path / "out" / "t") == sorted(["config.json", file])
    (said,) = unpack(
        tmp_path / "b.randes", ["t"], tmp_path / "cut", UnpackOptions(shard_bytes=600), RUN
    )
    assert names(tmp_path / "cut") == sorted(["config.json", file])
    assert said.notes == (f"{file}: one file, for its library reads no shards of it",)


def test_variants_in_shards_have_the_index_that_libraries_look_for(tmp_path: Path) -> None:
    for name, seed in (("base", 0), ("task", 1)):
        folder(tmp_path / name, seed)
        (tmp_path / name / "model.safetensors").rename(tmp_path / name / "model.fp16.safetensors")
    pack(str(tmp_path / "base"), [TaskInput("t", str(tmp_path / "task"))], tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", ["t"], tmp_path / "cut", UnpackOptions(shard_bytes=600), RUN)
    assert names(tmp_path / "cut") == [
        "config.json",
        "model.fp16-00001-of-00003.safetensors",
        "model.fp16-00002-of-00003.safetensors",
        "model.fp16-00003-of-00003.safetensors",
        "model.safetensors.index.fp16.json",
    ]
    with open_checkpoint(str(tmp_path / "cut")) as found:
        assert set(found.tensors) == set(weights(1))


def test_stale_shards_are_in_the_way(bank: Path, tmp_path: Path) -> None:
    cut = UnpackOptions(shard_bytes=600, force=True)
    unpack(bank, ["cars"], tmp_path / "out", cut, RUN)
    with pytest.raises(UsageError, match=r"model-0000\d-of-00003\.safetensors: would be loaded"):
        unpack(bank, ["cars"], tmp_path / "out", UnpackOptions(shard_bytes=1200, force=True), RUN)


def test_a_config_says_the_dtype_that_was_asked_for(tmp_path: Path) -> None:
    config = {"dtype": "float32", "text_config": {"torch_dtype": "float32"}, "n": 1}
    base = folder(tmp_path / "base", 0)
    task = folder(tmp_path / "task", 1, **{"config.json": json.dumps(config)})
    pack(base.source, [task], tmp_path / "bank.randes")
    (said,) = unpack(
        tmp_path / "bank.randes", ["task"], tmp_path / "out", UnpackOptions(dtype="BF16"), RUN
    )
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found == {"dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16"}, "n": 1}
    assert said.notes == ("config.json: dtype is bfloat16, as the weights now are",)


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


def test_a_dry_run_of_packing_lists_every_refused_task_with_its_reason(tmp_path: Path) -> None:
    base, good = folder(tmp_path / "base", 0), folder(tmp_path / "good", 1)
    other = tmp_path / "other.safetensors"
    save_file({"x": np.ones((2, 2), np.float32)}, other)
    tasks = [
        good,
        TaskInput("other", str(other)),
        TaskInput("gone", str(tmp_path / "nowhere")),
    ]
    report = pack(base.source, tasks, tmp_path / "bank.randes", dry_run=True)
    assert [task.name for task in report.tasks] == ["good"]
    reasons = {refusal.name: (refusal.exit_code, refusal.reason) for refusal in report.refused}
    assert reasons["gone"] == (5, f"{tmp_path / 'nowhere'}: not found")
    assert reasons["other"][0] == MismatchError.exit_code
    assert report.tasks[0].read_bytes == sum(w.nbytes for w in weights(1).values())
    with pytest.raises(MismatchError):
        pack(base.source, tasks[1:2], tmp_path / "bank.randes", dry_run=True)
