"""The reader of bank files; `docs/bank-format.md` specifies them.

Nothing outside this module and `bank_writer` knows that a bank is one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from randes_cli.core.arrays import F64, Raw
from randes_cli.errors import (
    BankDamaged,
    CheckpointError,
    HubError,
    MissingError,
    NewerFormat,
    RandesError,
)
from randes_cli.files.bank_checks import check_agreement
from randes_cli.files.bank_keys import BASE_DIGESTS, CHECKS, MANIFEST, NORMS, base_key
from randes_cli.files.checkpoint import TensorFile, WeightFile, open_weights
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.guard import unwatch, watch
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.manifest import decode
from randes_cli.files.records import TaskRecord
from randes_cli.limits import MOST_MANIFEST, MOST_STATISTIC
from randes_cli.plan import Unit, chunks, unit_table
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, BaseStorage, TensorInfo


def is_bank(path: Place) -> bool:
    """Whether there is a bank's file at a path, sound or not. Raises HubError."""
    if isinstance(path, Path) and not path.is_file():
        return False
    try:
        file = open_weights(path)
    except HubError:
        raise
    except RandesError:
        return False
    file.close()
    return file.header.metadata.get("format") == FORMAT_NAME


class BankFile:
    """An open bank. Opening checks the header, the manifest and how they agree.

    `file` is the open file where it is not the one at `path` (a bank on the Hub).
    Raises BankDamaged, NewerFormat, MissingError, or CheckpointError where it is no bank.
    """

    def __init__(self, path: Place, file: WeightFile | None = None) -> None:
        self.path = path
        self.file: WeightFile = file or _open_bank(path)
        try:
            self.header = self.file.header
            self._check_format()
            self._first_digest = self._locate_digests()
            self._checks = self._read_checks()
            self.manifest = decode(self._whole(MANIFEST).tobytes())
            if self.header.metadata.get("version") != str(self.manifest.version):
                raise BankDamaged("its header says another version than its manifest")
            check_agreement(self.manifest, self.header.tensors)
            if self.local is None:  # an open file here stays what it is
                watch(self)
        except (BankDamaged, NewerFormat) as error:
            self.close()
            raise type(error)(f"{path}: {error}") from None
        except BaseException:
            self.close()
            raise

    def _check_format(self) -> None:
        if self.header.metadata.get("format") != FORMAT_NAME:
            if MANIFEST in self.header.tensors and CHECKS in self.header.tensors:
                raise BankDamaged("its header does not say format: randes any more")
            raise CheckpointError(f"{self.path}: a checkpoint, not a bank (no format: randes)")
        version = self.header.metadata.get("version", "")
        if version.isascii() and version.isdigit() and int(version[:9]) > FORMAT_VERSION:
            raise NewerFormat(f"a bank of version {version[:9]}; upgrade randes")

    def _locate_digests(self) -> dict[str, int]:
        position, places = DIGEST_BYTES, {}
        for name, tensor in self.header.tensors.items():
            if name != CHECKS:
                places[name] = position
                position += DIGEST_BYTES * chunk_count(tensor)
        for name in (MANIFEST, CHECKS):
            found = self.header.tensors.get(name)
            if found is None or found.dtype != "U8" or len(found.shape) != 1:
                raise BankDamaged(f"no {name} tensor of bytes")
        if self.header.tensors[CHECKS].elements != position + DIGEST_BYTES:
            raise BankDamaged("checks has a wrong length")
        if self.header.tensors[MANIFEST].elements > MOST_MANIFEST:
            raise BankDamaged(f"its manifest is larger than {MOST_MANIFEST} bytes")
        return places

    def _read_checks(self) -> bytes:
        checks = self.read(CHECKS).tobytes()
        if digest(checks[:-DIGEST_BYTES]) != checks[-DIGEST_BYTES:]:
            raise BankDamaged("the table of digests is damaged")
        header = np.empty(self.header.size, np.uint8)
        self._read_at(0, header)
        if digest(header) != checks[:DIGEST_BYTES]:
            raise BankDamaged("the header is damaged")
        return checks

    @property
    def local(self) -> TensorFile | None:
        """The open file; None where the bank lies on the Hub or in a store."""
        return self.file if isinstance(self.file, TensorFile) else None

    @property
    def size(self) -> int:
        """Bytes of the bank."""
        return self.header.file_size

    @cached_property
    def units(self) -> dict[str, Unit]:
        """The unit of every superposed tensor, in the order of the base."""
        return unit_table(self.manifest.base.tensors.values(), self.manifest.transform)

    def require_tasks(self) -> None:
        """Raise MissingError where all tasks were removed."""
        if not self.manifest.tasks:
            raise MissingError(f"{self.path}: no task is left in it; add one first")

    def task(self, name: str) -> TaskRecord:
        """The record of a task. Raises MissingError with the names that there are."""
        for task in self.manifest.tasks:
            if task.name == name:
                return task
        names = [task.name for task in self.manifest.tasks]
        near = get_close_matches(name, names, n=3)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        some = ", ".join(names[:10]) or "none"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise MissingError(f"{self.path}: no task {name!a}{meant}; it has {some}{more}")

    def __contains__(self, key: str) -> bool:
        return key in self.header.tensors

    def info(self, key: str) -> TensorInfo:
        """Dtype and shape of a tensor of the file."""
        return self.header.tensors[key]

    def read_into(self, key: str, start: int, out: Raw) -> None:
        """Fill `out` with a tensor's bytes from byte `start` of its data, unchecked.

        Raises BankDamaged where the file was cut short since it was opened.
        """
        self._read_at(self.header.starts[key] + start, out)

    def _read_at(self, offset: int, out: Raw) -> None:
        try:
            self.file.read_at(offset, out)
        except CheckpointError as error:
            raise BankDamaged(f"{error} (restore a copy)") from error

    def read(self, key: str) -> Raw:
        """All bytes of a tensor, unchecked."""
        out = np.empty(self.header.tensors[key].nbytes, np.uint8)
        self.read_into(key, 0, out)
        return out

    def read_whole(self, key: str) -> Raw:
        """All bytes of a tensor. Raises BankDamaged when they are not those written."""
        try:
            return self._whole(key)
        except BankDamaged as error:
            raise BankDamaged(f"{self.path}: {error} (see: randes verify)") from None

    def _whole(self, key: str) -> Raw:
        data, tensor = self.read(key), self.header.tensors[key]
        size = tensor.nbytes // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            piece = data[rect.start * size : (rect.start + rect.elements) * size]
            if digest(piece) != self.digest(key, number):
                raise BankDamaged(f"tensor {key!a} is damaged")
        return data

    def digest(self, key: str, chunk: int) -> bytes:
        """The recorded digest of one chunk."""
        start = self._first_digest[key] + DIGEST_BYTES * chunk
        return self._checks[start : start + DIGEST_BYTES]

    def digests(self, key: str) -> bytes:
        """The recorded digests of a tensor's chunks, joined."""
        start = self._first_digest[key]
        return self._checks[start : start + DIGEST_BYTES * chunk_count(self.header.tensors[key])]

    def floats(self, key: str) -> F64:
        """A statistics tensor. Raises BankDamaged where a value cannot be one."""
        found: F64 = self.read_whole(key).view(np.float64)
        if not possible_statistics(key, found):
            raise BankDamaged(
                f"{self.path}: tensor {key!a} has values that no statistic has (NaN, infinite, "
                "negative or beyond any model's)"
            )
        return found.reshape(self.header.tensors[key].shape)

    def base_digests(self) -> Mapping[str, bytes]:
        """Chunk digests of the base's tensors, wherever the base lies."""
        tensors = self.manifest.base.tensors
        if self.manifest.base.storage is BaseStorage.embed:
            return {name: self.digests(base_key(name)) for name in tensors}
        if self.manifest.base.storage is BaseStorage.zero:
            return {}
        table, made, position = self.read_whole(BASE_DIGESTS).tobytes(), {}, 0
        for name, tensor in tensors.items():
            size = DIGEST_BYTES * chunk_count(tensor)
            made[name] = table[position : position + size]
            position += size
        return made

    def changed(self) -> Place | None:
        """Where it is, if another lies there by now."""
        return self.path if self.file.changed() else None

    def close(self) -> None:
        """Close the file."""
        unwatch(self)
        self.file.close()

    def __enter__(self) -> BankFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _open_bank(path: Place) -> WeightFile:
    """Open what should be a bank: where it cannot be read but is one, it is damaged."""
    try:
        return open_weights(path)
    except CheckpointError as error:
        if _is_meant_as_bank(path):
            raise BankDamaged(f"{error} (a damaged bank; restore a copy)") from None
        raise


def _is_meant_as_bank(path: Place) -> bool:
    if isinstance(path, RemotePath):
        return path.suffix == ".randes"
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return path.suffix == ".randes" or b'"format":"randes"' in file.read(4096)
    except OSError:
        return False


def possible_statistics(key: str, found: F64) -> bool:
    """Whether no value of a statistics tensor is NaN, infinite or beyond any model's."""
    least = 0.0 if key == NORMS else -MOST_STATISTIC
    return bool(np.all((found >= least) & (found <= MOST_STATISTIC)))
