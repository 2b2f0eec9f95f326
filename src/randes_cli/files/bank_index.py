"""The end of the file that takes the bank's name: its last tensors, and its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.bank_checks import check_agreement
from randes_cli.files.container import Container
from randes_cli.files.disk import OutputFile
from randes_cli.files.location import Place
from randes_cli.files.manifest import Manifest, decode, encode
from randes_cli.limits import MOST_MANIFEST
from randes_cli.specs import TensorInfo


def readable(path: Place, manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> bytes:
    """The manifest's bytes, which a reader takes and finds in agreement with the tensors."""
    try:
        text = encode(manifest)
        read = decode(text)
    except (BankDamaged, UnicodeEncodeError) as error:
        reason = f"{path}: not written, for it could not be read again: {error}"
        raise UsageError(reason) from None
    if len(text) > MOST_MANIFEST:
        raise UsageError(f"{path}: a manifest of more than {MOST_MANIFEST} bytes")
    check_agreement(read, tensors)
    return text


def write_index(
    out: OutputFile,
    container: Container,
    parts: Sequence[tuple[str, bytes]],
    metadata: dict[str, str],
    room: int | None = None,
) -> int:
    """Write these last tensors, digests and the header, of `room` bytes where that is reserved.

    Returns the file's bytes.
    """
    for key, data in parts:
        tensor = TensorInfo(key, "U8", (len(data),))
        container.place(tensor)
        container.digest_whole(tensor, data)
    container.place_checks()
    header = container.header(metadata, size=room)
    if room is not None and len(header) != room:
        raise AssertionError("the header outgrew its reserve")
    for key, data in parts:
        out.write_at(data, len(header) + container.starts[key])
    checks = container.checks(header)
    size = len(header) + container.size
    out.write_at(checks, size - len(checks))
    out.write_at(header, 0)
    out.resize(size)
    return size
