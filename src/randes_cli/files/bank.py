"""The bank file: names of its tensors, its writer, its reader.

`docs/bank-format.md` specifies it. Nothing outside this module knows that a bank is one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.codes import packed_bytes
from randes_cli.errors import BankDamaged, CheckpointError, NewerFormat, UsageError
from randes_cli.files.atomic import OutputFile
from randes_cli.files.checkpoint import TensorFile, WeightFile
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.header import encode_header
from randes_cli.files.manifest import Manifest, encode
from randes_cli.files.manifest_reader import decode
from randes_cli.plan import chunks, plan_units, seal_matrix, sealable, superposable
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, BaseStorage, Shuffle, TensorInfo

MANIFEST = "manifest"
CHECKS = "checks"
NORMS = "stats/norms"
GRAM = "stats/gram"
BASE_DIGESTS = "stats/base-digests"
#: Bytes of the largest manifest that is read: ten times that of 100,000 tensors and 20 tasks.
MAX_MANIFEST = 2**30
METADATA = {"format": FORMAT_NAME, "version": str(FORMAT_VERSION)}

Raw = NDArray[np.uint8]


def base_key(name: str) -> str:
    """Where the base's tensor lies in a bank."""
    return f"base/{name}"


def sum_key(group: int, name: str) -> str:
    """Where a group's superposition of a tensor lies in a bank."""
    return f"sum/{group}/{name}"


def scale_key(group: int, name: str) -> str:
    """Where the scales of a sealed superposition lie in a bank: rows' first, then columns'."""
    return f"scale/{group}/{name}"


def sealed_tensors(group: int, tensor: TensorInfo, bits: int) -> tuple[TensorInfo, TensorInfo]:
    """The scales and the codes of a sealed superposition, as a bank stores them."""
    scales = TensorInfo(scale_key(group, tensor.name), "F16", (sum(seal_matrix(tensor)),))
    size = packed_bytes(tensor.elements, bits)
    return scales, TensorInfo(sum_key(group, tensor.name), "U8", (size,))


def own_key(task: str, name: str) -> str:
    """Where a task's exact tensor, or the extra rows of a resized one, lies in a bank."""
    return f"own/{task}/{name}"


def file_key(content: str) -> str:
    """Where a side file's content (named by its XXH3-128 in hexadecimal) lies in a bank."""
    return f"files/{content}"


def sum_dtype(bits: int) -> str:
    """The dtype of a superposition."""
    return "I16" if bits == 16 else "I8"


class BankWriter:
    """Lays out and writes a new bank into an open temporary file.

    The header's room is reserved for every tensor that may come, so that data can be written
    before the last tensor is known. `finish` writes the manifest, the digests and the header.
    """

    def __init__(self, out: OutputFile, candidates: Iterable[TensorInfo]) -> None:
        self.out = out
        self._tensors: list[TensorInfo] = []
        self._starts: dict[str, int] = {}
        self._digests: dict[str, list[bytes]] = {}
        self._header_size = self._reserve(list(candidates))
        self._position = self._header_size

    @staticmethod
    def _reserve(candidates: list[TensorInfo]) -> int:
        """Bytes that the header needs at the most: all candidates, and the longest offsets."""
        text = encode_header(candidates, METADATA)
        keys = [tensor.name for tensor in candidates]
        total = sum(tensor.nbytes for tensor in candidates) + 2**40
        digits = 2 * len(str(total)) + 2
        padding = '"align/":{"dtype":"U8","shape":[7],"data_offsets":[,]},'
        entry = len(padding) + len(str(len(candidates))) + digits
        groups = {key.split("/")[1] for key in keys if key.startswith("sum/")}
        most = len(text) + len(candidates) * digits + (8 + 2 * max(0, len(groups) - 1)) * entry
        return -(-most // 8) * 8

    def place(self, tensor: TensorInfo) -> None:
        """Give a tensor the next place in the file, aligned to its element size."""
        size = tensor.nbytes // max(1, tensor.elements)
        gap = -self._position % size if size else 0
        if gap:
            pad = TensorInfo(f"align/{len(self._tensors)}", "U8", (gap,))
            self._append(pad)
            self.write(pad.name, 0, bytes(gap))
            self.set_digest(pad.name, 0, digest(bytes(gap)))
        self._append(tensor)

    def _append(self, tensor: TensorInfo) -> None:
        self._tensors.append(tensor)
        self._starts[tensor.name] = self._position
        self._digests[tensor.name] = [b""] * chunk_count(tensor)
        self._position += tensor.nbytes

    def placed(self, key: str) -> bool:
        """Whether the bank has this tensor."""
        return key in self._starts

    def start(self, key: str) -> int:
        """Offset of a placed tensor's first byte in the file."""
        return self._starts[key]

    def write(self, key: str, start: int, data: object) -> None:
        """Write bytes of a placed tensor from byte `start` of its data."""
        self.out.write_at(data, self._starts[key] + start)

    def set_digest(self, key: str, chunk: int, value: bytes) -> None:
        """Record the digest of one chunk."""
        self._digests[key][chunk] = value

    def digests(self, key: str) -> bytes:
        """The digests of a tensor's chunks so far, joined."""
        return b"".join(self._digests[key])

    def add_whole(self, tensor: TensorInfo, data: bytes) -> None:
        """Place and write a tensor whose data are at hand."""
        self.place(tensor)
        self.write(tensor.name, 0, data)
        size = len(data) // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            piece = data[rect.start * size : (rect.start + rect.elements) * size]
            self.set_digest(tensor.name, number, digest(piece))

    def finish(self, manifest: Manifest) -> int:
        """Write manifest, digests and header; return the file's size in bytes.

        What could not be opened again is refused here, before it takes a bank's place.
        """
        check_agreement(manifest, {tensor.name: tensor for tensor in self._tensors})
        text = encode(manifest)
        self.add_whole(TensorInfo(MANIFEST, "U8", (len(text),)), text)
        body = [self.digests(tensor.name) for tensor in self._tensors]
        count = (2 * DIGEST_BYTES) + sum(map(len, body))
        checks = TensorInfo(CHECKS, "U8", (count,))
        self.place(checks)
        header = encode_header(self._tensors, METADATA, length=self._header_size - 8)
        if len(header) != self._header_size:
            raise AssertionError("the header outgrew its reserve")
        content = digest(header) + b"".join(body)
        self.write(CHECKS, 0, content + digest(content))
        self.out.write_at(header, 0)
        self.out.resize(self._position)
        return self._position


def _check_sum(name: str, found: TensorInfo, manifest: Manifest, base: TensorInfo | None) -> None:
    group, _, tensor = name.removeprefix("sum/").partition("/")
    if not (group.isascii() and group.isdigit() and group == str(int(group[:8]))):
        raise BankDamaged(f"{name!a} is of no group of this bank")
    if int(group) >= manifest.groups:
        raise BankDamaged(f"{name!a} is of no group of this bank")
    if base is None or not superposable(base):
        raise BankDamaged(f"{name!a} does not match the base")
    sealed = found.dtype == "U8"
    if not sealed and base.shape != found.shape:
        raise BankDamaged(f"{name!a} does not match the base")
    if tensor not in manifest.steps:
        raise BankDamaged(f"manifest: steps[{tensor!a}] is missing")
    if not sealed and found.dtype != sum_dtype(manifest.widths.get(tensor, manifest.bits)):
        raise BankDamaged(f"{name!a} has another width than the manifest says")


def _check_seal(
    found: TensorInfo,
    manifest: Manifest,
    base: TensorInfo | None,
    expect: Callable[[TensorInfo], None],
) -> None:
    """Whether codes belong to a sealed group, and they and their scales have the right shapes."""
    if found.dtype != "U8" or base is None:
        return
    group = int(found.name.split("/", 2)[1])
    seal = manifest.sealed.get(group)
    if seal is None or not sealable(base):
        raise BankDamaged(f"{found.name!a} is of no sealed group of this bank")
    for wanted in sealed_tensors(group, base, seal.bits):
        expect(wanted)


def _check_units(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Layers that tasks move among themselves share one step, and lie in a group together."""
    if manifest.transform.shuffle is Shuffle.none:
        return
    for unit in plan_units(manifest.base.tensors, manifest.transform):
        names = unit.names
        for table, what in ((manifest.steps, "steps"), (manifest.widths, "widths")):
            if len({table.get(name) for name in names}) > 1:
                raise BankDamaged(f"manifest: {what} differ among layers like {names[0]!a}")
        for group in range(manifest.groups if len(names) > 1 else 0):
            there = [sum_key(group, name) in tensors for name in names]
            if any(there) and not all(there):
                lost = names[there.index(False)]
                raise BankDamaged(f"tensor {sum_key(group, lost)!a} is missing")


def check_agreement(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise BankDamaged unless `tensors` has what the manifest implies, in dtype and shape."""

    def expect(wanted: TensorInfo) -> None:
        if tensors.get(wanted.name) != wanted:
            raise BankDamaged(f"tensor {wanted.name!a} is missing or has another shape or dtype")

    base = {tensor.name: tensor for tensor in manifest.base.tensors}
    if manifest.base.storage is BaseStorage.embed:
        for tensor in base.values():
            expect(TensorInfo(base_key(tensor.name), tensor.dtype, tensor.shape))
    if manifest.base.storage is BaseStorage.reference:
        size = DIGEST_BYTES * sum(map(chunk_count, base.values()))
        expect(TensorInfo(BASE_DIGESTS, "U8", (size,)))
    for name, found in tensors.items():
        if name.startswith("sum/"):
            twin = base.get(name.partition("/")[2].partition("/")[2])
            _check_sum(name, found, manifest, twin)
            _check_seal(found, manifest, twin, expect)
    _check_units(manifest, tensors)
    for task in manifest.tasks:
        for name, tensor in task.own.items():
            expect(TensorInfo(own_key(task.name, name), tensor.dtype, tensor.shape))
        for name, shape in task.shapes.items():
            extra = shape[0] - base[name].shape[0]
            if extra > 0 and name not in task.own:
                dtype = task.tensor(base[name]).dtype
                expect(TensorInfo(own_key(task.name, name), dtype, (extra, *shape[1:])))
    for files in (manifest.base.files, *(task.files for task in manifest.tasks)):
        for name, content in files.items():
            there = tensors.get(file_key(content))
            if there is None or there.dtype != "U8" or len(there.shape) != 1:
                raise BankDamaged(f"side file {name!a} is missing")
    rows = sum(superposable(tensor) for tensor in base.values())
    count = len(manifest.tasks)
    expect(TensorInfo(NORMS, "F64", (rows, count)))
    expect(TensorInfo(GRAM, "F64", (len(manifest.cells), 2, count, count)))


def _open_bank(path: Path) -> TensorFile:
    """Open what should be a bank: where it cannot be read but is one, it is damaged."""
    try:
        return TensorFile(path)
    except CheckpointError as error:
        if _is_meant_as_bank(path):
            raise BankDamaged(f"{error} (a damaged bank; restore a copy)") from None
        raise


def _is_meant_as_bank(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return path.suffix == ".randes" or b'"format":"randes"' in file.read(4096)
    except OSError:
        return False


class BankFile:
    """An open bank. Opening checks the header, the manifest and how they agree.

    `file` is the open file where it is not the one at `path` (a bank on the Hub).
    Raises BankDamaged, NewerFormat, MissingError, or CheckpointError where it is no bank.
    """

    def __init__(self, path: Path, file: WeightFile | None = None) -> None:
        self.path = path
        self.file: WeightFile = file or _open_bank(path)
        try:
            self.header = self.file.header
            self._check_format()
            self._first_digest = self._locate_digests()
            self._checks = self._read_checks()
            self.manifest = decode(self._whole(MANIFEST).tobytes())
            check_agreement(self.manifest, self.header.tensors)
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
        if self.header.tensors[MANIFEST].elements > MAX_MANIFEST:
            raise BankDamaged(f"its manifest is larger than {MAX_MANIFEST} bytes")
        return places

    def _read_checks(self) -> bytes:
        checks = self.read(CHECKS).tobytes()
        if digest(checks[:-DIGEST_BYTES]) != checks[-DIGEST_BYTES:]:
            raise BankDamaged("the table of digests is damaged")
        header = np.empty(self.header.size, np.uint8)
        self.file.read_at(0, header)
        if digest(header) != checks[:DIGEST_BYTES]:
            raise BankDamaged("the header is damaged")
        return checks

    @property
    def local(self) -> TensorFile:
        """The open file. Raises UsageError where the bank lies on the Hub."""
        if isinstance(self.file, TensorFile):
            return self.file
        raise UsageError(f"{self.path}: lies on the Hub; download it to work on it")

    def __contains__(self, key: str) -> bool:
        return key in self.header.tensors

    def info(self, key: str) -> TensorInfo:
        """Dtype and shape of a tensor of the file."""
        return self.header.tensors[key]

    def read_into(self, key: str, start: int, out: Raw) -> None:
        """Fill `out` with a tensor's bytes from byte `start` of its data, unchecked."""
        self.file.read_at(self.header.starts[key] + start, out)

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

    def floats(self, key: str) -> NDArray[np.float64]:
        """A statistics tensor."""
        found: NDArray[np.float64] = self.read_whole(key).view(np.float64)
        return found.reshape(self.header.tensors[key].shape)

    def base_digests(self) -> Mapping[str, bytes]:
        """Chunk digests of the base's tensors, wherever the base lies."""
        tensors = self.manifest.base.tensors
        if self.manifest.base.storage is BaseStorage.embed:
            return {tensor.name: self.digests(base_key(tensor.name)) for tensor in tensors}
        if self.manifest.base.storage is BaseStorage.zero:
            return {}
        table, made, position = self.read_whole(BASE_DIGESTS).tobytes(), {}, 0
        for tensor in tensors:
            size = DIGEST_BYTES * chunk_count(tensor)
            made[tensor.name] = table[position : position + size]
            position += size
        return made

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> BankFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
