"""Bytes that flip: each is found, and none reaches a tensor."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from randes_cli.errors import BankDamaged, NewerFormat
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from randes_cli.specs import RunOptions
from tests.hostile.small import retrieved

ONE = RunOptions(threads=1)


def is_found(path: Path) -> bool:
    """Whether `verify` finds damage; whatever it does not refuse must be named."""
    try:
        with BankFile(path) as bank:
            return not verify(bank, ONE).sound
    except (BankDamaged, NewerFormat):
        return True


def retrievals(path: Path) -> dict[str, dict[str, bytes]]:
    """What can be retrieved without complaint."""
    made = {}
    try:
        with BankFile(path) as bank:
            for task in bank.manifest.tasks:
                try:
                    made[task.name] = retrieved(bank, task.name)
                except BankDamaged:
                    continue
    except (BankDamaged, NewerFormat):
        return {}
    return made


def flip_bytes(small: Path, folder: Path, flip: Callable[[int], int], step: int = 1) -> int:
    """Change each byte of a small bank in turn by ``flip(offset)``; returns how many.

    Fails unless each is found and what is still retrieved is right.
    """
    whole, path = small.read_bytes(), folder / "flipped.randes"
    path.write_bytes(whole)
    with BankFile(small) as bank:
        right = {name: retrieved(bank, name) for name in "ab"}
    fd = os.open(path, os.O_WRONLY)
    offsets = range(0, len(whole), step)
    for at in offsets:
        os.pwrite(fd, bytes([whole[at] ^ flip(at)]), at)
        assert is_found(path), f"byte {at}"
        for name, tensors in retrievals(path).items():
            assert tensors == right[name], f"byte {at}, task {name}"
        os.pwrite(fd, whole[at : at + 1], at)
    os.close(fd)
    assert path.read_bytes() == whole
    assert not is_found(path)
    return len(offsets)
