"""Goes round in a store: every command that writes, there and here, and the same bytes at the end.

    python benchmarks/stores.py s3://bucket/trial   (gs://…, az://…: what the extras reach)

The store's own tools say where it is and who asks (docs/storage.md). Made is `trial`, of about
20 MB, and removed again. Also against emulators of stores:

    gcp-storage-emulator start --port 9023 --in-memory --default-bucket bucket
    STORAGE_EMULATOR_HOST=http://127.0.0.1:9023 python benchmarks/stores.py gs://bucket/trial

    npx azurite-blob --inMemoryPersistence --skipApiVersionCheck --blobPort 10000
    AZURE_STORAGE_CONNECTION_STRING='…;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;' \
        python benchmarks/stores.py az://bucket/trial   (make the container first)
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.core import url_to_fs
from safetensors.numpy import save_file

from randes_cli import (
    Bank,
    MissingError,
    PackOptions,
    UnpackOptions,
    UsageError,
    add,
    convert,
    pack,
    remove,
    seal,
    unpack,
    verify,
)

TASKS = ("cars", "dtd", "svhn")


def make_inputs() -> None:
    """A base and three fine-tunes of 2 MB in the working folder."""
    random = np.random.default_rng(0)
    base = {f"h.{n}.w": random.standard_normal((256, 512), np.float32) for n in range(4)}
    save_file(base, "base.safetensors")
    for name in TASKS:
        moved = {k: v + 0.01 * random.standard_normal(v.shape, np.float32) for k, v in base.items()}
        save_file(moved, f"{name}.safetensors")


def edits(at: str, shards: int | None) -> None:
    """A bank at `at` (the working folder, or a folder of a store) as commands leave it."""
    files = [f"{at}{name}.safetensors" for name in TASKS]
    bank, options = f"{at}x.randes", PackOptions(max_shard_size=shards)
    pack(f"{at}base.safetensors", files[:2], bank, options, force=True)
    add(bank, files[2:])
    remove(bank, ["dtd"])
    seal(bank, f"{at}s.randes", 3, force=True)
    convert(bank, f"{at}c.randes", max_shard_size=1_000_000, force=True)
    unpack(bank, None, f"{at}out", UnpackOptions(force=True))


def refusals(at: str) -> None:
    """What must not be written, and what is not there."""
    for work, kind in (
        (
            lambda: pack(f"{at}base.safetensors", [f"{at}cars.safetensors"], f"{at}x.randes"),
            UsageError,
        ),
        (lambda: Bank.open(f"{at}nothing.randes"), MissingError),
    ):
        try:
            work()
        except kind:
            continue
        raise SystemExit(f"{at}: {kind.__name__} was to come, and did not")


def compare(filesystem: Any, inside: str) -> int:
    """Count the files here that are there alike. Ends the program where one is not."""
    made = [path for path in Path().rglob("*") if path.is_file()]
    for path in made:
        if filesystem.cat_file(f"{inside}/{path.as_posix()}") != path.read_bytes():
            raise SystemExit(f"{path}: other bytes in the store than here")
    return len(made)


def go_round(
    address: str,
    sizes: tuple[int | None, ...] = (None, 1_000_000),
    say: Callable[[str], None] = print,
) -> None:
    """All of it with banks in one file (None) or in shards, here and in a folder of a store."""
    filesystem, inside = url_to_fs(address)
    at = f"{address.rstrip('/')}/"
    make_inputs()
    for path in Path().glob("*.safetensors"):
        filesystem.put_file(str(path), f"{inside}/{path.name}")
    try:
        for shards in sizes:
            start = time.monotonic()
            edits("", shards)
            edits(at, shards)
            verify(f"{at}x.randes", prune=True, older_than=0)
            refusals(at)
            count = compare(filesystem, inside)
            say(f"{at}: {count} files as here, {time.monotonic() - start:.1f} s")
    finally:
        filesystem.rm(inside, recursive=True)


def main() -> None:
    """Go round at the address that was named."""
    if len(sys.argv) != 2 or "://" not in sys.argv[1]:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        go_round(sys.argv[1])


if __name__ == "__main__":
    main()
