"""The writer of bank files; `docs/bank-format.md` specifies what it writes."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.atomic import OutputFile
from randes_cli.files.bank_checks import check_agreement
from randes_cli.files.bank_keys import CHECKS, MANIFEST, parse_key
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.header import encode_header
from randes_cli.files.manifest import Manifest, decode, encode
from randes_cli.limits import MOST_HEADER, MOST_MANIFEST
from randes_cli.plan import chunks
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, TensorInfo

#: What the header of a new bank says of it.
METADATA = {"format": FORMAT_NAME, "version": str(FORMAT_VERSION)}


def bank_size(
    candidates: Iterable[TensorInfo], tensors: Iterable[TensorInfo], manifest: Manifest
) -> int:
    """Bytes of the file that a writer with these candidates makes of tensors and a manifest."""
    position, digests = _reserve(list(candidates)), 2
    text = TensorInfo(MANIFEST, "U8", (len(encode(manifest)),))
    for tensor in [*tensors, text]:
        gap = _gap(position, tensor)
        position += gap + tensor.nbytes
        digests += (gap > 0) + chunk_count(tensor)
    return position + DIGEST_BYTES * digests


def _gap(position: int, tensor: TensorInfo) -> int:
    """Bytes from `position` to the next place that is aligned to a tensor's elements."""
    size = tensor.nbytes // max(1, tensor.elements)
    return -position % size if size else 0


def _reserve(candidates: list[TensorInfo]) -> int:
    """Bytes that the header needs at the most: all candidates, and the longest offsets."""
    text = encode_header(candidates, METADATA)
    keys = [parse_key(tensor.name) for tensor in candidates]
    total = sum(tensor.nbytes for tensor in candidates) + 2**40
    digits = 2 * len(str(total)) + 2
    padding = '"align/":{"dtype":"U8","shape":[7],"data_offsets":[,]},'
    entry = len(padding) + len(str(len(candidates))) + digits
    groups = {key.owner for key in keys if key.kind == "sum"}
    most = len(text) + len(candidates) * digits + (8 + 2 * max(0, len(groups) - 1)) * entry
    return -(-most // 8) * 8


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
        self._header_size = _reserve(list(candidates))
        if self._header_size - 8 > MOST_HEADER:
            raise UsageError(
                f"{out.path}: a header of {self._header_size} bytes, of which safetensors allows "
                f"{MOST_HEADER}; pack fewer tasks or groups into one bank"
            )
        self._position = self._header_size

    def place(self, tensor: TensorInfo) -> None:
        """Give a tensor the next place in the file, aligned to its element size."""
        gap = _gap(self._position, tensor)
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

        What could not be opened again is refused here, by the reader's own checks, before it
        takes a bank's place: UsageError where options or inputs made it so.
        """
        text = self._readable(manifest)
        self.add_whole(TensorInfo(MANIFEST, "U8", (len(text),)), text)
        body = [self.digests(tensor.name) for tensor in self._tensors]
        count = (2 * DIGEST_BYTES) + sum(map(len, body))
        checks = TensorInfo(CHECKS, "U8", (count,))
        self.place(checks)
        metadata = {**METADATA, "version": str(manifest.version)}
        header = encode_header(self._tensors, metadata, length=self._header_size - 8)
        if len(header) != self._header_size:
            raise AssertionError("the header outgrew its reserve")
        content = digest(header) + b"".join(body)
        self.write(CHECKS, 0, content + digest(content))
        self.out.write_at(header, 0)
        self.out.resize(self._position)
        return self._position

    def _readable(self, manifest: Manifest) -> bytes:
        """The manifest's bytes, which a reader takes and finds in agreement with the tensors."""
        try:
            text = encode(manifest)
            read = decode(text)
        except (BankDamaged, UnicodeEncodeError) as error:
            reason = f"{self.out.path}: not written, for it could not be read again: {error}"
            raise UsageError(reason) from None
        if len(text) > MOST_MANIFEST:
            raise UsageError(f"{self.out.path}: a manifest of more than {MOST_MANIFEST} bytes")
        check_agreement(read, {tensor.name: tensor for tensor in self._tensors})
        return text
