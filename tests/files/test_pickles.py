"""Pickled checkpoints: read as tensors when allowed, and their code never runs."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli.core.convert import numpy_dtype
from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import Checkpoint, open_checkpoint
from randes_cli.specs import OpenOptions

ALLOWED = OpenOptions(allow_pickle=True)


def values(checkpoint: Checkpoint, name: str) -> np.ndarray[Any, Any]:
    tensor = checkpoint.tensors[name]
    out = np.empty(tensor.nbytes, np.uint8)
    checkpoint.read(name, 0, out)
    return out.view(numpy_dtype(tensor.dtype)).reshape(tensor.shape)


STATE = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "empty": torch.zeros(0, 4),
    "b": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
}


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_state_dict_reads_like_safetensors(
    suffix: str, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(str(path), ALLOWED) as checkpoint:
        assert list(checkpoint.tensors) == list(STATE)
        for name, tensor in STATE.items():
            wanted = tensor.float().numpy()
            assert np.array_equal(values(checkpoint, name).astype(np.float32), wanted)
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_a_state_dict_is_found_under_the_usual_wrappers(key: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": {"lr": 0.1}, key: STATE}, tmp_path / "model.pt")
    with open_checkpoint(str(tmp_path / "model.pt"), ALLOWED) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)


def test_wrappers_may_be_nested_and_other_weights_that_stay_are_told(tmp_path: Path) -> None:
    beside = {"optim": {"w": STATE["b"]}, "best": {"x": torch.ones(())}, "head": {"w": STATE["b"]}}
    torch.save({"state_dict": {"module": STATE}, **beside}, tmp_path / "model.pt")
    with open_checkpoint(str(tmp_path / "model.pt"), ALLOWED) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)
        said = "model.pt: its tensors under head stay behind (see --weights-key)"
        assert checkpoint.notes == (said,)


def test_tied_and_transposed_tensors_come_out_whole(tmp_path: Path) -> None:
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = {
        "embed": weight,
        "head": weight,
        "turned": weight.T,
        "row": weight[1],
        "v": weight[:, 1],
    }
    torch.save(state, tmp_path / "model.bin")
    with open_checkpoint(str(tmp_path / "model.bin"), ALLOWED) as checkpoint:
        for name, tensor in state.items():
            assert np.array_equal(values(checkpoint, name), tensor.numpy())


def test_shards_with_an_index_read_as_one(tmp_path: Path) -> None:
    names = list(STATE)
    files = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    torch.save({name: STATE[name] for name in names[:2]}, tmp_path / files[0])
    torch.save({name: STATE[name] for name in names[2:]}, tmp_path / files[1])
    weights = {name: files[number > 1] for number, name in enumerate(names)}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(str({"metadata": {}, "weight_map": weights}).replace("'", '"'))
    for source in (tmp_path, index):
        with open_checkpoint(str(source), ALLOWED) as checkpoint:
            assert set(checkpoint.tensors) == set(STATE)


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt"])
def test_without_leave_a_pickle_is_refused_with_the_way_out(suffix: str, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / f"pytorch_model.{suffix}")
    for source in (tmp_path, tmp_path / f"pytorch_model.{suffix}"):
        with pytest.raises(CheckpointError, match=r"convert it to safetensors .* --allow-pickle"):
            open_checkpoint(str(source))


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.safetensors", "model.st"])
@pytest.mark.parametrize("how", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("allow", [True, False])
def test_code_in_a_pickle_never_runs(name: str, how: str, allow: bool, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / name
    bomb = {"weight": torch.ones(2), "bomb": Bomb(ran)}
    if how == "plain":
        path.write_bytes(pickle.dumps(Bomb(ran)))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(str(path), OpenOptions(allow_pickle=allow))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *(({"epoch": 3}, "no state dict"), ([1, 2], "no state dict")),
        ({"w": torch.ones(2, 2).to_sparse()}, "dense"),
        ({"w": torch.ones(2, dtype=torch.complex128)}, "complex128"),
        ({"w": torch.ones(2), "b": np.ones(2)}, "'b' is an array of NumPy beside tensors"),
    ],
)
def test_what_holds_no_dense_state_dict_is_refused(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.pt").write_bytes(whole[:size])
        said = "cannot be read as a PyTorch file" if size else "an empty file"
        with pytest.raises(CheckpointError, match=rf"model\.pt: {said}"):
            open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "weights.pkl", "noext", "model.pt2", "x.st", "x.safetensors"]
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_is_known_by_its_content(name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "saved", _use_new_zipfile_serialization=zipped)
    path = (tmp_path / "saved").rename(tmp_path / name)
    with open_checkpoint(str(path), ALLOWED) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)
        assert checkpoint.pickle == "state_dict"
    with pytest.raises(CheckpointError, match=r"pickled weights; .* say --allow-pickle"):
        open_checkpoint(str(path))


def test_averaged_weights_beside_the_model_are_taken_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "ema.pth"
    averaged = {name: tensor * 2 for name, tensor in STATE.items()}
    torch.save({"model": STATE, "model_ema": averaged, "epoch": 1}, path)
    said = "several sets of the same weights, under model, model_ema: say which, --weights-key mod"
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(str(path), ALLOWED)
    for key, factor in (("model", 1), ("model_ema", 2)):
        options = OpenOptions(allow_pickle=True, weights_key=key)
        with open_checkpoint(str(path), options) as checkpoint:
            assert np.array_equal(values(checkpoint, "a.weight"), factor * STATE["a.weight"])
            assert checkpoint.pickle == key
    options = OpenOptions(allow_pickle=True, weights_key="ema")
    with pytest.raises(CheckpointError, match="no weights under 'ema'; it has model, model_ema"):
        open_checkpoint(str(path), options)


def test_weights_under_other_keys_are_listed_and_taken_by_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "megatron.pt"
    torch.save({"model": {"language_model": {"encoder": STATE}}, "iteration": 5}, path)
    with pytest.raises(CheckpointError, match=r"under model\.language_model\.encoder: say --weig"):
        open_checkpoint(str(path), ALLOWED)
    options = OpenOptions(allow_pickle=True, weights_key="model.language_model.encoder")
    with open_checkpoint(str(path), options) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)


def test_only_tensors_by_name_are_a_state_dict_and_a_flat_one_has_no_key(tmp_path: Path) -> None:
    beside = {"moments": {0: STATE["b"], "1": STATE["b"]}, "runs": {0: {"w": STATE["b"]}}}
    torch.save({"model": STATE, **beside}, tmp_path / "model.pt")
    with open_checkpoint(str(tmp_path / "model.pt"), ALLOWED) as checkpoint:
        assert (checkpoint.pickle, checkpoint.notes) == ("model", ())
    torch.save(STATE, tmp_path / "model.pt")
    options = OpenOptions(allow_pickle=True, weights_key="ema")
    with open_checkpoint(str(tmp_path / "model.pt"), options) as checkpoint:
        assert checkpoint.pickle == ""


@pytest.mark.parametrize(("prefix", "other"), [("", "module."), ("module.", "")])
def test_the_same_weights_behind_a_word_are_the_same_set(
    prefix: str, other: str, tmp_path: Path
) -> None:
    sets = {"model": prefix, "ema": other}
    names = ("a.b.weight", "a.c.weight")
    states = {key: {p + name: STATE["b"] for name in names} for key, p in sets.items()}
    torch.save(states, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="several sets of the same weights, under model, ema"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


def test_what_holds_itself_is_looked_into_a_few_times(tmp_path: Path) -> None:
    loaded: dict[str, Any] = {"epoch": 3}
    loaded |= dict.fromkeys(("model", *map(str, range(200))), loaded)
    torch.save(loaded, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no state dict in it"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


def test_a_compressed_archive_is_refused_before_a_byte_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(50_000_000))
    assert (tmp_path / "model.pt").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="a compressed archive of 50000000 bytes in"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", np.random.default_rng(0).bytes(1000))
    with pytest.raises(CheckpointError, match="a compressed archive of 1000 bytes in"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", bytes(1000))
        archive.filelist.append(archive.filelist[0])  # the same bytes under two entries
    with pytest.raises(CheckpointError, match="a compressed archive of 2000 bytes in"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


def test_a_tensor_that_repeats_few_values_is_refused_before_it_is_made(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**40)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="tensor 'w' repeats few values"):
        open_checkpoint(str(tmp_path / "model.pt"), ALLOWED)


def test_other_kinds_of_files_are_called_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", a=np.ones(2))
    np.save(tmp_path / "model.npy", np.ones(2))
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("readme", b"x")
    with tarfile.open(tmp_path / "model.nemo", "w") as archive:
        archive.add(tmp_path / "model.npy", "model_weights.ckpt")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for name in ("model.onnx", "model.msgpack"):
        (tmp_path / name).write_bytes(b"\x08\x07" + bytes(100))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "model.ts"))
    for name, said in {
        "model.npz": r"a NumPy archive \(\.npz\)",
        "model.npy": r"a NumPy array \(\.npy\)",
        "model.zip": "a zip archive",
        "model.nemo": "a NeMo archive",
        "model.h5": "an HDF5 file",
        "model.onnx": "an ONNX file",
        "model.msgpack": "a Flax file",
        "model.ts": "a TorchScript archive",
    }.items():
        with pytest.raises(CheckpointError, match=rf"{name}: {said}"):
            open_checkpoint(str(tmp_path / name), ALLOWED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"GGUF" + bytes(60), "a GGUF file"),
        (b"tjgg" + bytes(60), "not a safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_what_is_only_called_a_pickle_is_told_for_what_it_is(
    content: bytes, said: str, folder: bool, tmp_path: Path
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    for options in (OpenOptions(), ALLOWED):
        with pytest.raises(CheckpointError, match=said) as error:
            open_checkpoint(str(tmp_path if folder else tmp_path / "pytorch_model.bin"), options)
        assert "--allow-pickle" not in str(error.value)
