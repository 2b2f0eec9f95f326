"""A bank of about 8 kB, and ways to damage and forge it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from randes_cli.build.pack import pack
from randes_cli.files.bank.entries import METADATA
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import CHECKS, MANIFEST
from randes_cli.files.bank.manifest import encode
from randes_cli.files.base import bank_base
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.json_text import encode_header
from randes_cli.ops.verify import verify
from randes_cli.plan import chunks
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import PackOptions, RunOptions, TaskInput, TensorInfo, Transform

ONE = RunOptions(threads=1)


def write_small_family(folder: Path) -> Path:
    """base, a (with a head of its own and fewer words) and b (one tensor changed)."""
    random = np.random.default_rng(3)
    base = {f"h.{n}.w": random.standard_normal((4, 3), np.float32) for n in range(2)}
    base["wte.weight"] = random.standard_normal((5, 3), np.float32)
    base["left"] = random.standard_normal(40, np.float32)
    a = {key: value + np.float32(0.1) for key, value in base.items() if key != "left"}
    a["left"] = base["left"]
    a["wte.weight"] = a["wte.weight"][:4]
    a["head"] = random.standard_normal((2, 3), np.float32)
    b = {**base, "h.1.w": base["h.1.w"] * np.float32(1.01)}
    for name, state in (("base", base), ("a", a), ("b", b)):
        save_file(state, folder / f"{name}.safetensors")
    return folder


def make_small_bank(folder: Path, preset: str = "srsf") -> Path:
    """A bank of a and b beside their files."""
    write_small_family(folder)
    path = folder / "small.randes"
    pack(
        str(folder / "base.safetensors"),
        [TaskInput(name, str(folder / f"{name}.safetensors")) for name in "ab"],
        path,
        PackOptions(transform=Transform.from_preset(preset)),
        ONE,
        force=True,
    )
    return path


def retrieved(bank: BankFile, task: str) -> dict[str, bytes]:
    """All bytes of a retrieved task, without torch."""
    run = RunOptions(threads=1, strip_elements=4096)
    with bank_base(bank) as base:
        retrieval = Retrieval(bank, base, bank.task(task), run=run)
        return {name: retrieval.read(name).tobytes() for name in retrieval.tensors}


def contents(bank: Path) -> tuple[dict[str, TensorInfo], dict[str, bytes], Any]:
    """Tensors (without manifest and checks), their bytes, and the manifest's JSON."""
    with BankFile(bank) as opened:
        kept = {k: t for k, t in opened.header.tensors.items() if k not in (MANIFEST, CHECKS)}
        data = {key: opened.read_whole(key).tobytes() for key in kept}
        return kept, data, json.loads(encode(opened.manifest))


def forge(
    path: Path,
    tensors: dict[str, TensorInfo],
    data: dict[str, bytes],
    manifest: bytes,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a bank with any content and right digests, as a forger would."""
    rows = [*tensors.values(), TensorInfo(MANIFEST, "U8", (len(manifest),))]
    bodies = [*(data[name] for name in tensors), manifest]
    digests = b""
    for row, body in zip(rows, bodies, strict=True):
        size = row.nbytes // max(1, row.elements)
        for rect in chunks(*row.matrix):
            digests += digest(body[rect.start * size : (rect.start + rect.elements) * size])
        assert len(body) == row.nbytes and chunk_count(row) == len(chunks(*row.matrix))
    count = 2 * DIGEST_BYTES + len(digests)
    rows.append(TensorInfo(CHECKS, "U8", (count,)))
    header = encode_header(rows, METADATA if metadata is None else metadata)
    content = digest(header) + digests
    path.write_bytes(b"".join([header, *bodies, content, digest(content)]))
    return path


def forged_manifest(bank: Path, path: Path, change: Callable[[Any], object]) -> Path:
    """The bank with a changed manifest; `change` edits the JSON value or returns another."""
    tensors, data, value = contents(bank)
    made = change(value)
    text = json.dumps(value if made is None else made, ensure_ascii=False)
    return forge(path, tensors, data, text.encode("utf-8", "surrogatepass"))


def sound(path: Path) -> bool:
    with BankFile(path) as bank:
        return verify(bank, ONE).sound
