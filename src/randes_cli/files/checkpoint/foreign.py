"""Tells from its content what a file is that is no safetensors file: a pickle, or what else."""

from __future__ import annotations

import zipfile
from pathlib import Path

from randes_cli.errors import CheckpointError
from randes_cli.files.kinds import PICKLED

#: Beginnings of pickles, protocols 2 to 5.
_ZIP = b"PK\x03\x04"
_MAGIC = (
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x1f\x8b", "a file that is compressed with gzip: unpack it first"),
    (b"(\xb5/\xfd", "a file that is compressed with zstd: unpack it first"),
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
    return head.startswith(PICKLED)


def _is_zipped_pickle(path: Path) -> bool:
    """Whether a zip is one of torch.save. Sizes are looked at before a byte is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # damaged: the reader says how
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript archive, which is a program; {_GIVE} (its state_dict())"
        )
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
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
