"""Tells from its content what a file is that is no safetensors file: a pickle, or what else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from randes_cli.errors import CheckpointError
from randes_cli.files.kinds import PICKLED
from randes_cli.files.weight_names import is_index

#: Beginnings of files: of zip archives, and of what is neither a pickle nor safetensors.
_ZIP = b"PK\x03\x04"
_MAGIC = (
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x1f\x8b", "a file that is compressed with gzip: unpack it first"),
    (b"(\xb5/\xfd", "a file that is compressed with zstd: unpack it first"),
)
#: Files of other programs that begin with nothing that is theirs alone, by their endings.
_ENDINGS = {
    ".onnx": "an ONNX file",
    ".tflite": "a TensorFlow Lite file",
    ".pb": "a TensorFlow file",
    ".msgpack": "a Flax file (msgpack)",
    ".mlmodel": "a Core ML file",
    ".engine": "a TensorRT engine",
    ".distcp": "a part of a distributed checkpoint",
}
_CONVERT = (
    "convert it to safetensors (load it where you trust it, then save_pretrained), "
    "or say --allow-pickle: weights only are read, and no code of the file runs"
)
#: What a tensor without elements is where there should be values.
PLACEHOLDER = (
    "a placeholder of ZeRO-3, whose values are elsewhere "
    "(save with stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py)"
)
_GIVE = "give a safetensors checkpoint, as save_pretrained or save_file writes it"


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle of PyTorch's, whatever it is called.

    Raises CheckpointError naming what it is where that is neither a pickle nor safetensors but
    known. A file that cannot be read is for whoever opens it.
    """
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    if head[8:9] == b"{":  # a header of 640 bytes begins like a pickle
        return False
    if head.startswith(_ZIP):
        return _is_zipped_pickle(path)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            raise CheckpointError(f"{path}: {kind}; {_GIVE}")
    if head[257:262] == b"ustar":
        kind = "a NeMo archive" if path.suffix == ".nemo" else "a tar archive"
        raise CheckpointError(f"{path}: {kind}: unpack it, and {_GIVE}")
    if path.suffix in _ENDINGS:
        raise CheckpointError(f"{path}: {_ENDINGS[path.suffix]}; {_GIVE}")
    return head.startswith(PICKLED)


def _is_zipped_pickle(path: Path) -> bool:
    """Whether a zip is one of torch.save. Sizes are looked at before a byte is unpacked."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # damaged: the reader says how
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript archive, which is a program; {_GIVE} (its state_dict())"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        arrays = bool(names) and all(name.endswith(".npy") for name in names)
        kind = "a NumPy archive (.npz)" if arrays else "a zip archive: unpack it first"
        raise CheckpointError(f"{path}: {kind}; {_GIVE}")
    size = path.stat().st_size
    unpacked = sum(member.file_size for member in members)
    if unpacked > size or any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise CheckpointError(
            f"{path}: a compressed archive of {unpacked} bytes in {size}, which torch.save never "
            "writes; save it again"
        )
    return True


def refuse_pickle(path: Path, *, allow: bool) -> None:
    """Raise CheckpointError for a pickle where the user did not allow pickles.

    What is called one and begins otherwise is for whoever opens it.
    """
    named_so = is_index(path.name) or not path.is_file() or not path.stat().st_size
    if not allow and (named_so or is_pickle(path)):
        raise CheckpointError(f"{path}: pickled weights; {_CONVERT}")


def refuse_unfinished(paths: Iterable[Path]) -> None:
    """Raise CheckpointError for a file whose downloader is not done: it has its size before."""
    for path in paths:
        if os.path.exists(f"{path}.aria2"):
            raise CheckpointError(
                f"{path}: a download that is not complete ({path.name}.aria2 beside it says so); "
                "finish it, or begin again"
            )
