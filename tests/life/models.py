"""A base and five fine-tunes that meet every rule of add and remove, small enough for thousands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import BaseStorage, EditOptions, PackOptions, RunOptions, TaskInput, Transform

State = dict[str, NDArray[np.generic]]
ONE = RunOptions(threads=1)
NAMES = ("whole", "single", "sparse", "shrunk", "half")
#: A row of ``table`` that no sample looks at.
UNSEEN_ROW = 70


def _moved(random: np.random.Generator, state: State, scale: float = 0.02) -> State:
    made = dict(state)
    for name, value in state.items():
        if value.dtype == np.float32 and value.size > 1:
            noise = np.float32(scale) * random.standard_normal(value.shape, np.float32)
            made[name] = np.add(value, noise)
    return made


def family() -> dict[str, State]:
    """``base`` and the tasks by name."""
    random = np.random.default_rng(5)
    base: State = {"table": random.standard_normal((1100, 64), np.float32)}
    for layer in range(3):
        base[f"h.{layer}.w"] = random.standard_normal((8, 6), np.float32)
        base[f"h.{layer}.b"] = random.standard_normal(6, np.float32)
    base["wte.weight"] = random.standard_normal((10, 6), np.float32)
    base["ids"] = np.arange(4)
    base["scale"] = np.array(2.0, np.float32)
    whole = {**_moved(random, base), "head.weight": random.standard_normal((3, 6), np.float32)}
    single = {**base, "h.1.w": _moved(random, base)["h.1.w"]}
    sparse = dict(base)
    sparse["table"] = np.array(base["table"])
    sparse["table"][UNSEEN_ROW, 3] += np.float32(0.5)
    sparse["wte.weight"] = np.concatenate([base["wte.weight"], np.ones((2, 6), np.float32)])
    shrunk = _moved(random, base)
    shrunk["wte.weight"] = shrunk["wte.weight"][:7]
    del shrunk["h.2.b"]
    half = {
        name: value.astype(np.float16) if value.dtype == np.float32 and value.size > 1 else value
        for name, value in _moved(random, base).items()
    }
    tasks = (whole, single, sparse, shrunk, half)
    return {"base": base, **dict(zip(NAMES, tasks, strict=True))}


def write_family(folder: Path) -> Path:
    """The family as files of a folder."""
    for name, state in family().items():
        save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})
    return folder


def source(folder: Path, name: str) -> str:
    """A member's file."""
    return str(folder / f"{name}.safetensors")


def options(preset: str = "hankel", bits: int = 16, **more: object) -> PackOptions:
    """Options of a bank of the family."""
    return PackOptions(
        transform=Transform.from_preset(preset),
        bits=bits,
        capacity=16,
        **more,  # type: ignore[arg-type]
    )


def make_bank(
    folder: Path,
    names: tuple[str, ...] = NAMES,
    chosen: PackOptions | None = None,
    *,
    out: str = "bank.randes",
) -> Path:
    """Pack members of the family."""
    tasks = [TaskInput(name, source(folder, name)) for name in names]
    pack(source(folder, "base"), tasks, folder / out, chosen or options(), ONE, force=True)
    return folder / out


def put(bank: Path, *names: str, folder: Path | None = None, wait: float = 0.0) -> None:
    """Add members of the family."""
    place = folder or bank.parent
    add(bank, [TaskInput(name, source(place, name)) for name in names], EditOptions(wait=wait), ONE)


def take(bank: Path, *names: str) -> None:
    """Remove members of the family, whose files lie beside the bank."""
    remove(bank, names, run=ONE)


Sums = dict[str, tuple[str, bytes, bytes]]


def sums(bank: Path) -> Sums:
    """Dtype, bytes and digests of every superposition."""
    with BankFile(bank) as opened:
        return {
            key: (info.dtype, opened.read_whole(key).tobytes(), opened.digests(key))
            for key, info in sorted(opened.header.tensors.items())
            if key.startswith("sum/")
        }


def packed_afresh(bank: Path, folder: Path, out: str = "fresh.randes") -> Path:
    """The tasks of a bank packed anew, with their indices, on the bank's steps."""
    with BankFile(bank) as opened:
        manifest = opened.manifest
    chosen = PackOptions(
        transform=manifest.transform,
        bits=manifest.bits,
        seed=manifest.seed,
        capacity=manifest.capacity,
        steps=manifest.steps,
        widths={**dict.fromkeys(manifest.steps, manifest.bits), **manifest.widths},
        base_storage=BaseStorage(manifest.base.storage),
    )
    tasks = [TaskInput(t.name, source(folder, t.name), t.index) for t in manifest.tasks]
    pack(source(folder, "base"), tasks, folder / out, chosen, ONE, force=True)
    return folder / out
