"""One reader for files, sharded folders and folders of other tools' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import Checkpoint, open_checkpoint
from tests.checkpoints import State, random_state, same_bits, save, save_sharded


def state() -> State:
    return random_state({"a": [3, 4], "b": [5], "c": [2, 2, 2]})


def contents(opened: Checkpoint) -> State:
    made = {}
    for name, info in opened.tensors.items():
        raw = np.empty(info.nbytes, np.uint8)
        opened.read(name, 0, raw)
        made[name] = torch.from_numpy(raw).view(torch.float32).reshape(info.shape)
    return made


def assert_holds(path: Path, wanted: State) -> None:
    with open_checkpoint(str(path)) as opened:
        found = contents(opened)
    assert found.keys() == wanted.keys()
    assert all(same_bits(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", ["model.safetensors", "x.st", "no-suffix"])
def test_a_single_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    assert_holds(save(state(), tmp_path / name), state())


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model", "other"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_are_read_through_their_index(tmp_path: Path, stem: str, shards: int) -> None:
    folder = save_sharded(state(), tmp_path / "folder", shards=shards, stem=stem)
    assert_holds(folder, state())
    assert_holds(folder / f"{stem}.safetensors.index.json", state())


def test_reads_may_begin_anywhere(tmp_path: Path) -> None:
    path = save(state(), tmp_path / "m.st")
    with open_checkpoint(str(path)) as opened:
        raw = np.empty(8, np.uint8)
        opened.read("a", 12, raw)
    assert torch.equal(torch.from_numpy(raw).view(torch.float32), state()["a"].reshape(-1)[3:5])


def edit_index(folder: Path, **changes: str) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    path.write_text(json.dumps(index))


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    all_of_it = random_state({"a": [3, 4], "b": [5], "c": [5], "d": [5]})
    folder = save_sharded(all_of_it, tmp_path / "f")
    both = {name: all_of_it[name] for name in ("a", "b", "c")}
    save(both, folder / "model-00001-of-00002.safetensors")
    for named in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        edit_index(folder, b=named)
        with pytest.raises(CheckpointError, match="tensor 'b' is in two shards"):
            open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "has no weight_map"),
        ("[1]", "has no weight_map"),
        ("{", "Expecting property name"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "duplicate key 'a'"),
    ],
)
def test_a_malformed_index_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_checkpoint(str(tmp_path))
    assert str(path) in str(caught.value)


def test_a_file_cut_while_it_is_read_is_truncated_not_a_crash(tmp_path: Path) -> None:
    path = save(state(), tmp_path / "m.st")
    with open_checkpoint(str(path)) as opened:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 4)
        name = next(reversed(list(opened.tensors)))
        raw = np.empty(opened.tensors[name].nbytes, np.uint8)
        with pytest.raises(CheckpointError, match="truncated while it was read"):
            opened.read(name, 0, raw)


def test_metadata_of_a_second_component_are_said_to_stay_behind(tmp_path: Path) -> None:
    save(state(), tmp_path / "model.safetensors", {"format": "pt", "mine": "1"})
    for name, metadata in (("2_Dense", {"format": "pt"}), ("3_Sparse", {"tied.weight": "weight"})):
        save(state(), tmp_path / name / "model.safetensors", metadata)
    with open_checkpoint(str(tmp_path)) as checkpoint:
        said = [note for note in checkpoint.notes if "metadata" in note]
    wanted = "3_Sparse/model.safetensors: its header's metadata stay behind ('tied.weight')"
    assert said == [wanted]
