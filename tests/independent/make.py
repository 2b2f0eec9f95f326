"""Write the test vectors: `python -m tests.independent.make FOLDER`.

Beside the banks stands ``index.json``: what each shows, and [dtype, shape, XXH3-128 of the bytes]
of every tensor that comes back; for bad ones the rule that they break.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import xxhash

from randes_cli import Bank
from randes_cli.cli.main import run
from tests.independent.bad import bad_banks
from tests.independent.cases import NAMES, State, Vector, vectors
from tests.independent.shard_cases import bad_shards, shard_vectors


def save(state: State, path: Path) -> Path:
    """Write a safetensors file; `numpy` alone does not know all dtypes."""
    header, at = {}, 0
    for name, value in state.items():
        end = at + value.nbytes
        entry = {"dtype": NAMES[value.dtype], "shape": value.shape, "data_offsets": [at, end]}
        header[name], at = entry, end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(value.tobytes() for value in state.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def command(words: Sequence[str]) -> None:
    """Run randes; its words must succeed."""
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        code = run(list(words))
    if code:
        raise SystemExit(f"randes {' '.join(words)}: {code}")


def contents(path: Path) -> dict[str, list[object]]:
    """[dtype, shape, XXH3-128 of the bytes] of each tensor of a checkpoint."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    made = {}
    for name, entry in header.items():
        first, end = (8 + length + at for at in entry["data_offsets"])
        digest = xxhash.xxh3_128(data[first:end]).hexdigest()
        made[name] = [entry["dtype"], entry["shape"], digest]
    return made


def make(name: str, vector: Vector, folder: Path) -> dict[str, object]:
    """Write `<name>.randes` to the folder; its entry of the index."""
    bank = folder / f"{name}.randes"
    work = Path.cwd()
    save(vector.base, work / "base.safetensors")
    for task, content in (*vector.tasks.items(), *vector.extra.items()):
        save(content, work / f"{task}.safetensors")
    sources = [f"{task}={task}.safetensors" for task in vector.tasks]
    command(
        [
            "pack",
            "base.safetensors",
            *sources,
            "-o",
            "bank.randes",
            "-q",
            "--force",
            *vector.options,
        ]
    )
    for words in vector.then:
        command([*("bank.randes" if word == "BANK" else word for word in words), "-q"])
    tasks: dict[str, object] = {}
    with Bank.open("bank.randes") as opened:
        names = opened.tasks
    for task in names:
        out = work / "out.safetensors"
        words = ["unpack", "bank.randes", "--task", task, "-o", str(out), "--force", "-q"]
        command([*words, *vector.retrieve])
        tasks[task] = contents(out)
    bank.write_bytes((work / "bank.randes").read_bytes())
    for shard in sorted((work / "bank.randes.d").glob("*")):
        bank.with_name(f"{bank.name}.d").mkdir(exist_ok=True)
        (bank.with_name(f"{bank.name}.d") / shard.name).write_bytes(shard.read_bytes())
    entry: dict[str, object] = {"shows": vector.shows, "tasks": tasks}
    if "reference" in vector.options:
        entry["base"] = f"{name}.base.safetensors"
        (folder / f"{name}.base.safetensors").write_bytes((work / "base.safetensors").read_bytes())
    if "--lambda" in vector.retrieve:
        entry["coefficient"] = float(vector.retrieve[-1])
    return entry


def make_all(folder: Path) -> None:
    """Write all vectors, and their index, to an empty folder; works in the current one."""
    index: dict[str, object] = {
        name: make(name, vector, folder) for name, vector in (vectors() | shard_vectors()).items()
    }
    index |= bad_shards(folder / "shards-packed.randes", folder)
    good = (folder / "transform-hankel.randes").read_bytes()
    for name, (rule, data) in bad_banks(good).items():
        (folder / f"bad-{name}.randes").write_bytes(data)
        index[f"bad-{name}"] = {"breaks": rule}
    text = json.dumps(index, indent=1, ensure_ascii=False)
    (folder / "index.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        os.chdir(work)
        make_all(target)
