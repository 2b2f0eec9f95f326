"""The files of a folder when they come back: under their names, with what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.build.edit import add
from randes_cli.build.pack import pack
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.ops.describe import describe
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import OpenOptions, PackOptions, TaskInput
from tests.read.folders import PLAIN, RUN, folder, names, weights


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


def test_layers_that_a_config_of_the_base_makes_up_are_told_of(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", 0)
    tasks = [folder(tmp_path / name, n) for n, name in enumerate(("whole", "less", "more"), 1)]
    for name in ("whole", "less", "more"):
        (tmp_path / name / "config.json").unlink()
    less = {name: value for name, value in weights(2).items() if "layers.2." not in name}
    save_file(less, tmp_path / "less" / "model.safetensors", {"format": "pt"})
    more = {**weights(3), "layers.8.extra": next(iter(less.values()))}
    save_file(more, tmp_path / "more" / "model.safetensors", {"format": "pt"})
    whole, pruned, grown = pack(base.source, tasks, tmp_path / "bank.randes").tasks
    assert whole.notes == ("has no config: gets the base's side files",)
    assert pruned.notes[1].startswith("lacks layers.2 of the base, whose config.json")
    assert grown.notes[1].startswith("has layers.8, and the base's config.json says that there")


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
