"""One reader for files, sharded folders and folders of other tools' names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli.errors import CheckpointError, MissingError
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


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
        "adapter_model.safetensors",
        "something.st",
    ],
)
def test_a_folder_stands_for_the_one_file_in_it(tmp_path: Path, name: str) -> None:
    save(state(), tmp_path / "folder" / name)
    assert_holds(tmp_path / "folder", state())


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model", "other"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_are_read_through_their_index(tmp_path: Path, stem: str, shards: int) -> None:
    folder = save_sharded(state(), tmp_path / "folder", shards=shards, stem=stem)
    assert_holds(folder, state())
    assert_holds(folder / f"{stem}.safetensors.index.json", state())


def test_a_whole_model_wins_over_shards_beside_it(tmp_path: Path) -> None:
    folder = save_sharded(random_state({"old": [2]}), tmp_path / "folder", shards=1)
    save(state(), folder / "model.safetensors")
    assert_holds(folder, state())


def test_reads_may_begin_anywhere(tmp_path: Path) -> None:
    path = save(state(), tmp_path / "m.st")
    with open_checkpoint(str(path)) as opened:
        raw = np.empty(8, np.uint8)
        opened.read("a", 12, raw)
    assert torch.equal(torch.from_numpy(raw).view(torch.float32), state()["a"].reshape(-1)[3:5])


def edit_index(folder: Path, **changes: object) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name, file in changes.items():
        if file is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = file
    path.write_text(json.dumps(index))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save_sharded(state(), tmp_path / "f")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"shard model-00002-of-00002\.safetensors is missing"
    ):
        open_checkpoint(str(folder))


def test_a_tensor_that_the_index_does_not_name_is_refused(tmp_path: Path) -> None:
    folder = save_sharded(state(), tmp_path / "f")
    edit_index(folder, a=None)
    with pytest.raises(CheckpointError, match=r"does not name tensor 'a' that model-00001"):
        open_checkpoint(str(folder))


def test_a_tensor_that_its_shard_lacks_is_refused(tmp_path: Path) -> None:
    folder = save_sharded(state(), tmp_path / "f")
    edit_index(folder, zzz="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002.* lacks tensor 'zzz'"):
        open_checkpoint(str(folder))


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
    "file", ["../model.safetensors", "/etc/passwd", "a/../../b.safetensors", "..", "", "a\\b", 7]
)
def test_an_index_never_leads_out_of_its_folder(tmp_path: Path, file: object) -> None:
    folder = save_sharded(state(), tmp_path / "f")
    save(state(), tmp_path / "model.safetensors")
    edit_index(folder, a=file)
    with pytest.raises(CheckpointError, match=r"weight_map\['a'\]: bad file name"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
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


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not found"):
        open_checkpoint(str(tmp_path / "nowhere"))


def test_a_folder_without_weights_or_with_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no safetensors file in this folder"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: pickled weights"):
        open_checkpoint(str(tmp_path))
    save(state(), tmp_path / "x.safetensors")
    save(state(), tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match=r"has 2 weight files \(x\.safetensors, y\."):
        open_checkpoint(str(tmp_path))


def test_quantised_weights_are_refused_by_the_tensor_that_shows_it(tmp_path: Path) -> None:
    path = save({"l.qweight": torch.zeros(4, dtype=torch.int32)}, tmp_path / "q.st")
    with pytest.raises(CheckpointError, match=r"tensor 'l\.qweight' belongs to quantised weights"):
        open_checkpoint(str(path))


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
