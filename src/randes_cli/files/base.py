"""The base of a bank: where its tensors are read from, inside the bank or outside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

import numpy as np

from randes_cli.core.arrays import I64, Raw
from randes_cli.errors import MismatchError, MissingError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import base_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.checkpoint.shared import all_names, retied
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.files.hub.ref import recorded_ref
from randes_cli.files.location import Place, RemotePath, absolute_source, recorded_place
from randes_cli.files.source import Source, ZeroBase, place_of, places_of
from randes_cli.files.sources import Sources
from randes_cli.files.stores.store import look_up
from randes_cli.files.weight_file import TensorFile
from randes_cli.limits import StrPath, as_source
from randes_cli.specs import BaseStorage, OpenOptions


def bank_places(bank: BankFile, keys: Sequence[str]) -> I64:
    """`BankFile.where` of many tensors that are there, one a row; (−1, 0) in place of None."""
    numbers, offsets = bank.store.places(keys)
    fd = bank.file.fd if isinstance(bank.file, TensorFile) else -1
    here = (numbers == 0) & (fd >= 0)
    return np.stack([np.where(here, fd, -1), np.where(here, offsets, 0)], axis=1)


class BankTensors:
    """The tensors of a bank, as they lie in it, as a source."""

    def __init__(self, bank: BankFile) -> None:
        self.bank, self.source, self.tensors = bank, str(bank.path), bank.header.tensors
        self.metadata: Mapping[str, str] = {}
        self.read = bank.read_into

    def places(self, keys: Sequence[str]) -> I64:
        return bank_places(self.bank, keys)


class BankBase:
    """The base inside a bank (or outside it, by reference) as a source of tensors."""

    def __init__(self, bank: BankFile, outside: Checkpoint | None) -> None:
        self.bank, self.outside = bank, outside
        self.source = f"{bank.path} (base)" if outside is None else outside.source
        self.tensors = bank.manifest.base.tensors
        self.metadata = bank.manifest.base.metadata
        self.ties = bank.manifest.base.ties
        inside = bank.manifest.base.storage is BaseStorage.embed
        self._digests = None if inside else bank.base_digests()

    @property
    def whole(self) -> Source:
        """The same under all names that its tensors have."""
        return retied(self, self.ties)

    def read(self, name: str, start: int, out: Raw) -> None:
        if self.outside is None:
            self.bank.read_into(base_key(name), start, out)
        else:
            self.outside.read(name, start, out)

    def place(self, name: str) -> tuple[int, int] | None:
        if self.outside is None:
            return self.bank.where(base_key(name))
        return place_of(self.outside, name)

    def places(self, names: Sequence[str]) -> I64:
        if self.outside is None:
            return bank_places(self.bank, [base_key(name) for name in names])
        return places_of(self.outside, names)

    def digest(self, name: str, chunk: int) -> bytes:
        if self._digests is None:
            return self.bank.digest(base_key(name), chunk)
        return self._digests[name][DIGEST_BYTES * chunk : DIGEST_BYTES * (chunk + 1)]

    def close(self) -> None:
        if self.outside is not None:
            self.outside.close()


def find_recorded(recorded: str, bank: Place) -> str | None:
    """Where a recorded source is now: on the Hub, in a store, below the bank's folder, or here.

    A bank from elsewhere must not make us read any other place of this machine: randes records
    no path that leads out of a folder, so such a path is not followed.
    """
    if recorded_ref(recorded) is not None or recorded_place(recorded) is not None:
        return recorded
    if not _stays_below(recorded):
        return None
    if isinstance(bank, RemotePath):
        beside = bank.parent / recorded
        if look_up(beside) is not None:
            return beside.url
    return (isinstance(bank, Path) and below(bank.parent, recorded)) or below(Path(), recorded)


def below(folder: Path, recorded: str) -> str | None:
    """Where a recorded source is below a folder; None where it is not there, or leads out of it."""
    with suppress(OSError):  # a name that no file can have
        if _stays_below(recorded) and (folder / recorded).exists():
            return str(folder / recorded)
    return None


def _stays_below(recorded: str) -> bool:
    parts = PurePosixPath(recorded)
    return bool(recorded) and not parts.is_absolute() and ".." not in parts.parts


def found_recorded(recorded: str, bank: Place) -> str | None:
    """`find_recorded`, as a worker of a cluster finds it, which is in another folder."""
    found = find_recorded(recorded, bank)
    return None if found is None else absolute_source(found)


def found_base(bank: BankFile, given: StrPath | None) -> str | None:
    """The base that `open_base` opens, as a worker finds it; None: it is not outside the bank."""
    if given is not None:
        return absolute_source(as_source(given))
    record = bank.manifest.base
    outside = record.storage is BaseStorage.reference
    return found_recorded(record.source, bank.path) if outside else None


@contextmanager
def bank_base(
    bank: BankFile, given: StrPath | None = None, *, allow_pickle: bool = False
) -> Iterator[BankBase | None]:
    """The base of a bank for the time of the block; see `open_base`."""
    base = open_base(bank, given, allow_pickle=allow_pickle)
    with nullcontext() if base is None else closing(base):
        yield base


def open_base(
    bank: BankFile, given: StrPath | None, *, allow_pickle: bool = False
) -> BankBase | None:
    """The base of a bank; None where it is all zeros. A pickle that was packed is read again.

    A base inside the bank is read there, unless another place is given for it.

    Raises MissingError where it lies outside and cannot be found, MismatchError where what is
    found has other names or shapes (values are compared chunk by chunk as they are read).
    """
    record = bank.manifest.base
    if record.storage is BaseStorage.zero:
        return None
    if record.storage is BaseStorage.embed and given is None:
        return BankBase(bank, None)
    path = find_recorded(record.source, bank.path) if given is None else as_source(given)
    if path is None:
        raise MissingError(
            f"{bank.path}: its base {record.source!r} is outside the bank and not found; "
            "say --base PATH"
        )
    opening = OpenOptions(allow_pickle=allow_pickle).recorded(record.pickle, record.layout)
    outside = Sources(opening).open(path)
    if outside.tensors != all_names(record.tensors, record.ties):
        outside.close()
        raise MismatchError(f"{path}: not the base of {bank.path} (names, dtypes or shapes differ)")
    return BankBase(bank, outside)


def bank_source(bank: BankFile, base: BankBase | None) -> Source:
    """The base as tasks are compared with it: zeros in a bank of adapters."""
    return base or ZeroBase(f"{bank.path} (base)", bank.manifest.base.tensors)


def base_task(bank: BankFile) -> TaskRecord:
    """The base as if it were a task that changed nothing. Raises MissingError where it is zeros."""
    record = bank.manifest.base
    if record.storage is BaseStorage.zero:
        raise MissingError(f"{bank.path}: a bank of adapters has no base; name a task")
    layouts = [task.layout for task in bank.manifest.tasks if set(task.layout) - {""}]
    return TaskRecord(
        name="(base)",
        index=0,
        seed=0,
        group=0,
        source=record.source,
        fingerprint=record.fingerprint,
        metadata=record.metadata,
        unchanged=frozenset(record.tensors),
        ties=record.ties,
        layout=record.layout or {"": "model.safetensors", **(layouts[0] if layouts else {})},
        files=record.files,
    )
