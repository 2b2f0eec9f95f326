"""The reader of bank files; `docs/bank-format.md` specifies them.

`store` knows in how many files a bank lies, `writer` makes them; nobody else asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
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
    some_of,
)
from randes_cli.files.bank.checks import check_agreement, possible_statistics
from randes_cli.files.bank.keys import BASE_DIGESTS, CHECKS, MANIFEST, base_key, kind_bytes
from randes_cli.files.bank.manifest import Manifest, decode
from randes_cli.files.bank.place import BANK_FIRST, at, refuse_folder
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.bank.shard_files import OpenShard, open_shards
from randes_cli.files.bank.shards import FEATURE, SHARD_METADATA
from randes_cli.files.bank.store import is_sound, open_store
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.header import Header
from randes_cli.files.local.guard import unwatch, watch
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.nearest import no_task
from randes_cli.files.weight_file import TensorFile, WeightFile, open_weights
from randes_cli.plan import Rect, Unit, unit_table
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, BaseStorage, TensorInfo


def is_bank(path: Place) -> bool:
    """Whether there is a bank's file at a path, sound or not. Raises HubError."""
    if isinstance(path, Path) and not os.path.isfile(path):
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

    `file` is the open file where it is not the one at `path` (a bank on the Hub), and `open_shard`
    opens its shards, should it have any. `lenient`: shards that are missing are no error until
    they are read. Shards beside the bank stay open (as many as the system allows), so that an edit
    meanwhile takes nothing away.
    Raises BankDamaged, NewerFormat, MissingError, or CheckpointError where it is no bank.
    """

    def __init__(
        self,
        path: Place,
        file: WeightFile | None = None,
        open_shard: OpenShard | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        self.path, self._floats = path, dict[str, F64]()
        if file is None:
            refuse_folder(path)
        try:
            self.store = open_store(
                lambda: self._checked_file(file),
                open_shard or open_shards(path),
                lambda opened: file is not None or not opened.changed(),
            )
            self.header, self.file = self.store.header, self.store.file
        except (BankDamaged, NewerFormat) as error:
            raise at(path, error) from None
        problem = None if lenient else next(iter(self.store.problems.values()), None)
        if problem is not None:
            self.close()
            raise problem
        try:
            self.manifest = self._read_manifest()
            check_agreement(self.manifest, self.header.tensors)
            if self.far:  # an open file here stays what it is
                watch(self)
        except (BankDamaged, NewerFormat) as error:
            self.close()
            raise at(path, error) from None
        except BaseException:
            self.close()
            raise

    def _checked_file(self, file: WeightFile | None) -> WeightFile:
        """The open file, which says that it is a bank."""
        opened = file or _open_bank(self.path)
        try:
            self._check_format(opened.header)
        except BaseException:
            opened.close()
            raise
        return opened

    def _check_format(self, header: Header) -> None:
        kind = header.metadata.get("format")
        if kind == SHARD_METADATA["format"]:
            raise CheckpointError(f"{self.path}: a shard of a bank; name the bank's own file")
        if kind != FORMAT_NAME:
            if MANIFEST in header.tensors and CHECKS in header.tensors:
                raise BankDamaged("its header does not say format: randes any more")
            raise CheckpointError(f"{self.path}: a checkpoint, not a bank ({BANK_FIRST})")
        version = header.metadata.get("version", "")
        if version.isascii() and version.isdigit() and int(version[:9]) > FORMAT_VERSION:
            raise NewerFormat(f"a bank of version {version[:9]}; upgrade randes")

    def _read_manifest(self) -> Manifest:
        """The manifest; what it says of shards is of no use beyond these files."""
        made = decode(self.store.checked(MANIFEST))
        if self.header.metadata.get("version") != str(made.version):
            raise BankDamaged("its header says another version than its manifest")
        if (FEATURE in made.features) != (self.store.layout is not None):
            raise BankDamaged("manifest and header disagree on whether it is in shards")
        return replace(made, features=tuple(name for name in made.features if name != FEATURE))

    @property
    def far(self) -> bool:
        return not isinstance(self.file, TensorFile)

    @property
    def size(self) -> int:
        """Bytes of the bank, shards and all."""
        return self.store.size

    @property
    def base_bytes(self) -> int:
        """Bytes that stay where they are in an edit in place: of the base, in shards."""
        if self.most is None:
            return 0
        return kind_bytes(self.header.tensors).get("base", 0)

    @property
    def most(self) -> int | None:
        """Bytes of a shard at the most; None for a bank in one file."""
        return self.store.layout.most if self.store.layout else None

    @cached_property
    def units(self) -> dict[str, Unit]:
        """The unit of every superposed tensor, in the order of the base."""
        return unit_table(self.manifest.base.tensors, self.manifest.transform)

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
        raise MissingError(f"{self.path}: {no_task(name, names)}")

    def some_tasks(self) -> str:
        """The names of its first ten tasks, and how many more there are."""
        return some_of([task.name for task in self.manifest.tasks], 10) or "none"

    def __contains__(self, key: str) -> bool:
        return key in self.header.tensors

    def info(self, key: str) -> TensorInfo:
        return self.header.tensors[key]

    def read_into(self, key: str, start: int, out: Raw) -> None:
        """Fill `out` with a tensor's bytes from byte `start` of its data, unchecked.

        Raises BankDamaged where the file was cut short since it was opened.
        """
        self.store.read_into(key, start, out)

    def where(self, key: str) -> tuple[int, int] | None:
        """(file descriptor, offset) of a tensor's first byte; None where it lies in no file here.

        None of a shard, too: those are opened when they are read.
        """
        number, offset = self.store.address(key)
        return None if number or not isinstance(self.file, TensorFile) else (self.file.fd, offset)

    def read(self, key: str) -> Raw:
        """All bytes of a tensor, unchecked."""
        out = np.empty(self.header.tensors[key].nbytes, np.uint8)
        self.read_into(key, 0, out)
        return out

    def read_whole(self, key: str) -> Raw:
        """All bytes of a tensor. Raises BankDamaged when they are not those written."""
        data = self.read(key)
        if not is_sound(data, self.header.tensors[key], self.digests(key)):
            raise self.damaged(key)
        return data

    def damaged(self, key: str) -> BankDamaged:
        """The error for a tensor whose bytes are not those written."""
        shard = self.store.shard_of(key)
        where = f", in {self.path.name}.d/{shard}," if shard else ""
        return BankDamaged(f"{self.path}: tensor {key!r}{where} is damaged (see: randes verify)")

    def digest(self, key: str, chunk: int) -> bytes:
        return self.store.digest(key, chunk)

    def digests(self, key: str) -> bytes:
        """The recorded digests of a tensor's chunks, joined."""
        return self.store.digests(key)

    def floats(self, key: str) -> F64:
        """A statistics tensor, read once. Raises BankDamaged where a value cannot be one."""
        if (found := self._floats.get(key)) is None:
            made = self._statistics(key, self.read_whole(key)).reshape(self.info(key).shape)
            made.flags.writeable = False
            found = self._floats.setdefault(key, made)
        return found

    def some_floats(self, key: str, chunk: int, rect: Rect) -> F64:
        """One chunk of a statistics tensor."""
        raw = np.empty(rect.elements, np.float64).view(np.uint8)
        self.read_into(key, rect.start * len(raw) // rect.elements, raw)
        if digest(raw) != self.digest(key, chunk):
            raise self.damaged(key)
        return self._statistics(key, raw)

    def _statistics(self, key: str, raw: Raw) -> F64:
        found: F64 = raw.view(np.float64)
        if not possible_statistics(key, found):
            what = "values that no statistic has (NaN, infinite, negative or beyond any model's)"
            raise BankDamaged(f"{self.path}: tensor {key!r} has {what}")
        return found

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
        unwatch(self)
        self.store.close()

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
