"""A bank, read from docs/bank-format.md and docs/sealed.md alone; nothing of the package is used.

Slow and whole: the file is in memory, every digest is checked on opening.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tests.independent.container import (
    ITEM_SIZE,
    chunk_digests,
    fingerprint,
    need,
    parse_header,
    strict_json,
)
from tests.independent.files import Files
from tests.independent.numbers import (
    FLOATS,
    Array,
    convert,
    from_f32,
    levels,
    to_f32,
    unpack_codes,
)
from tests.independent.streams import permutation, signs, units, view

VERSIONS = (1, 2)
FEATURES = {"superposition", "sealed", "share", "ties", "shards"}
DISTORTION = {1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009501, 8: 0.00006}
#: name → (dtype, shape, bytes)
Checkpoint = dict[str, tuple[str, tuple[int, ...], bytes]]


class Bank:
    """One bank; `base` is the checkpoint of a base that lies outside."""

    def __init__(self, path: Path, base: Path | None = None) -> None:
        self.files = Files(path)
        self.entries, metadata = self.files.entries, self.files.metadata
        self.manifest = strict_json(self.bytes_of("manifest"))
        self._check_manifest(metadata)
        self.tasks: dict[str, Any] = {task["name"]: task for task in self.manifest["tasks"]}
        self.shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (dtype, tuple(shape))
            for name, (dtype, shape) in self.manifest["base"]["tensors"].items()
        }
        self.units = self._units()
        self._check_sums()
        self._outside = self._open_base(base)

    def _check_manifest(self, metadata: Mapping[str, str]) -> None:
        manifest = self.manifest
        need(manifest["format"] == "randes", "format")
        need(manifest["version"] in VERSIONS, f"version {manifest['version']}")
        need(metadata == {"format": "randes", "version": str(manifest["version"])}, "no bank")
        for feature in manifest["features"]:
            need(feature in FEATURES, f"unknown feature {feature}")
        need(("shards" in manifest["features"]) == self.files.sharded, "the feature shards")
        for record in (manifest, *manifest["tasks"]):
            need(type(record["seed"]) is int, "seed is no integer")
            need(manifest["version"] == 1 or 0 <= record["seed"] < 2**53, "seed is too large")

    def _check_sums(self) -> None:
        """A group has the sums of every tensor that a task of it changed, or of its whole unit."""
        for task in self.manifest["tasks"]:
            absent = self._absent(task)
            for name in filter(self.superposable, self.shapes):
                layers = self.units.get(name, ("", [name]))[1]
                shuffled = self.manifest["transform"]["shuffle"] != "none"
                for layer in layers if shuffled else [name]:
                    key = f"sum/{task['group']}/{layer}"
                    need(name in absent or key in self.entries, f"{key} is missing")

    @staticmethod
    def _absent(task: Mapping[str, Any]) -> set[str]:
        """Tensors of the base of which nothing of a task is superposed."""
        missing = {*task["missing"]} - {*task.get("ties", {}).values()}
        return {*task["unchanged"], *missing, *task["own"]}

    def bytes_of(self, name: str) -> bytes:
        return self.files.bytes_of(name)

    def superposable(self, name: str) -> bool:
        dtype, shape = self.shapes[name]
        return dtype in FLOATS and prod(shape) > 1

    def _units(self) -> dict[str, tuple[str, list[str]]]:
        """Of each transformed tensor, the layer type that names its shuffle, and its layers."""
        transform = self.manifest["transform"]
        taken = {
            name: self.shapes[name][1]
            for name in filter(self.superposable, self.shapes)
            if name not in transform.get("exact", ())
            and (transform["targets"] == "all" or name in transform["matched"])
        }
        return units(taken, transform["every"], any_script=self.manifest["version"] == 1)

    def _open_base(self, path: Path | None) -> dict[str, bytes]:
        base = self.manifest["base"]
        if base["storage"] != "reference":
            return {}
        assert path is not None, "where the base lies outside, it must be named"
        data = path.read_bytes()
        entries, _, _ = parse_header(data)
        found = {name: data[entry.first : entry.end] for name, entry in entries.items()}
        ties = base.get("ties", {})
        described = [
            (name, *self.shapes[ties.get(name, name)], content) for name, content in found.items()
        ]
        need(fingerprint(described) == base["fingerprint"], "another base")
        digests = [
            value
            for name, (dtype, shape) in self.shapes.items()
            for value in chunk_digests(dtype, shape, found[name])
        ]
        need(b"".join(digests) == self.bytes_of("stats/base-digests"), "stats/base-digests")
        return found

    def base_bytes(self, name: str) -> bytes:
        storage = self.manifest["base"]["storage"]
        if storage == "embed":
            return self.bytes_of(f"base/{name}")
        if storage == "zero":
            dtype, shape = self.shapes[name]
            return bytes(prod(shape) * ITEM_SIZE[dtype])
        return self._outside[name]

    def coefficient(self, task: Mapping[str, Any]) -> float:
        """λ of a task: what tuning chose, else the default."""
        if "coefficient" in task:
            return float(task["coefficient"])
        if self.manifest["version"] > 1:
            return float(task["default"])
        return round(min(1.0, 8 * self._cosine(task)), 2)

    def _cosine(self, task: Mapping[str, Any]) -> float:
        """The cosine of the default λ, from lengths alone; 1 where nothing else can come back."""
        names = list(filter(self.superposable, self.shapes))
        tasks, group = self.manifest["tasks"], task["group"]
        shape = len(names), len(tasks)
        norms = np.frombuffer(self.bytes_of("stats/norms"), "<f8").reshape(shape)
        kept = energy = norms
        if "stats/rounded" in self.entries:
            found = np.frombuffer(self.bytes_of("stats/rounded"), "<f8")
            kept, energy = found.reshape(2, *shape)
        column = tasks.index(task)
        members = [k for k, other in enumerate(tasks) if other["group"] == group]
        forgotten = [g for _, g in self.manifest["forgotten"] if g == group]
        if len(members) + len(forgotten) == 1 and str(group) not in self.manifest.get("sealed", {}):
            return 1.0
        absent = self._absent(task)
        present = [name for name in names if name not in absent]
        own = dot = total = 0.0
        for name in present:
            own += norms[names.index(name), column]
            dot += kept[names.index(name), column]
            place = self._place(task, name)
            sealed = f"scale/{group}/{place}" in self.entries
            lost = DISTORTION[self.manifest["sealed"][str(group)]["bits"]] if sealed else 0.0
            there = ((names.index(self._tensor_at(tasks[k], place)), k) for k in members)
            total += sum(energy[at] for at in there) / (1 - lost)
        if not present:
            return 1.0
        return max(0.0, float(dot / np.sqrt(own * total))) if own and total else 0.0

    def _order(self, task: Mapping[str, Any], name: str) -> tuple[list[str], list[int]]:
        """The layers that are moved with a tensor, and σ of a task on them."""
        label, layers = self.units.get(name, ("", [name]))
        kind, seed, index = self.manifest["transform"]["shuffle"], task["seed"], task["index"]
        if kind == "none" or name not in self.units:
            return layers, list(range(len(layers)))
        return layers, permutation(kind, seed, index, label, len(layers))

    def _place(self, task: Mapping[str, Any], name: str) -> str:
        """The position, by the base's name there, at which a task's tensor lies."""
        layers, order = self._order(task, name)
        return layers[order.index(layers.index(name))]

    def _tensor_at(self, task: Mapping[str, Any], place: str) -> str:
        """The tensor that a task has at a position."""
        layers, order = self._order(task, place)
        return layers[order[layers.index(place)]]

    def share(self, group: int, name: str) -> int:
        """m: one element in m of this tensor is in the group's superposition."""
        every = int(self.manifest.get("shares", {}).get(str(group), 1))
        rows, columns = view(self.shapes[name][1])
        return 1 if 16 * every * (rows + columns) > rows * columns else every

    def _spread(self, group: int, name: str, every: int) -> Array | None:
        """S of a tensor with a share of its elements, all others zero."""
        key, (rows, columns) = f"sum/{group}/{name}", view(self.shapes[name][1])
        wide = -(-columns // every)
        if f"scale/{group}/{name}" in self.entries:
            bits = self.manifest["sealed"][str(group)]["bits"]
            held = levels(bits)[unpack_codes(self.bytes_of(key), bits, rows * wide)]
        else:
            need(self.entries[key].shape == (rows, wide), f"{key}: shape")
            size = self.manifest["widths"].get(name, self.manifest["bits"]) // 8
            held = np.frombuffer(self.bytes_of(key), f"<i{size}").astype(np.float32)
        made = np.zeros((rows, columns), np.float32)
        for i in range(rows):
            kept = [j for j in range(columns) if (i + j + group) % every == 0]
            made[i, kept] = held[i * wide : i * wide + len(kept)]
        if f"scale/{group}/{name}" in self.entries:
            scales = np.frombuffer(self.bytes_of(f"scale/{group}/{name}"), "<f2")
            made = made * scales[rows:].astype(np.float32)
            made = made * scales[:rows].astype(np.float32)[:, None]
        return np.asarray(made.reshape(-1))

    def superposition(self, group: int, name: str) -> Array | None:
        """S of one tensor, in steps, as float32; None where no task of the group changed it."""
        key = f"sum/{group}/{name}"
        if key not in self.entries:
            return None
        shape = self.shapes[name][1]
        if self.share(group, name) > 1:
            return self._spread(group, name, self.share(group, name))
        if f"scale/{group}/{name}" not in self.entries:
            need(self.entries[key].shape == shape, f"{key}: shape")
            width = self.manifest["widths"].get(name, self.manifest["bits"])
            need(self.entries[key].dtype == f"I{width}", f"{key}: width")
            return np.frombuffer(self.bytes_of(key), f"<i{width // 8}").astype(np.float32)
        bits = self.manifest["sealed"][str(group)]["bits"]
        rows, columns = view(shape)
        scales = np.frombuffer(self.bytes_of(f"scale/{group}/{name}"), "<f2").astype(np.float32)
        codes = unpack_codes(self.bytes_of(key), bits, prod(shape))
        at = np.arange(prod(shape))
        value = levels(bits)[codes] * scales[rows + at % columns] * scales[at // columns]
        return np.asarray(value)

    def delta(self, task: Mapping[str, Any], name: str, coefficient: float) -> Array | None:
        """λ · 2^e · signs · S for the base's whole tensor, in float32; None: as the base."""
        transform, source = self.manifest["transform"], name
        flips: Array = np.ones(1, np.float32)
        if name in self.units:
            source = self._place(task, name)
            flips = signs(transform["signs"], task["seed"], source, self.shapes[name][1])
        total = self.superposition(task["group"], source)
        if total is None:
            return None
        step = np.float32(self.share(task["group"], source) * 2.0 ** self.manifest["steps"][source])
        return np.asarray(np.float32(coefficient) * step * (flips * total))

    def retrieve(self, name: str, coefficient: float | None = None) -> Checkpoint:
        """A task's checkpoint."""
        task = self.tasks[name]
        chosen = self.coefficient(task) if coefficient is None else coefficient
        made: Checkpoint = {}
        for tensor in self.shapes:
            if tensor not in task["missing"] and tensor not in task["own"]:
                made[self._renamed(task, tensor)] = self._shared(task, tensor, chosen)
        for tensor, (dtype, shape) in task["own"].items():
            content = self.bytes_of(f"own/{name}/{tensor}")
            made[self._renamed(task, tensor)] = dtype, tuple(shape), content
        for tensor, kept in task.get("ties", {}).items():
            if kept in task["own"]:
                dtype, shape = task["own"][kept]
                whole = dtype, tuple(shape), self.bytes_of(f"own/{name}/{kept}")
            else:
                whole = self._shared(task, kept, chosen)
            made[self._renamed(task, tensor)] = whole
        return made

    def _shared(
        self, task: Mapping[str, Any], name: str, coefficient: float
    ) -> tuple[str, tuple[int, ...], bytes]:
        base_dtype, base_shape = self.shapes[name]
        usual = task.get("dtype", base_dtype) if base_dtype in FLOATS else base_dtype
        dtype = task["dtypes"].get(name, usual)
        shape = tuple(task["shapes"].get(name, base_shape))
        delta = None
        if name not in task["unchanged"] and self.superposable(name):
            delta = self.delta(task, name, coefficient)
        if delta is None:
            data = convert(self.base_bytes(name), base_dtype, dtype)
        else:
            data = from_f32(dtype, to_f32(base_dtype, self.base_bytes(name)) + delta)
        data = data[: prod(shape) * ITEM_SIZE[dtype]]
        if shape[:1] > base_shape[:1]:
            key = f"own/{task['name']}/{name}"
            data += convert(self.bytes_of(key), self.entries[key].dtype, dtype)
        return dtype, shape, data

    def _renamed(self, task: Mapping[str, Any], name: str) -> str:
        """The task's name of a tensor of the base."""
        mine, banks = task.get("prefix", ("", ""))
        if name not in self.shapes and name not in self.manifest["base"].get("ties", {}):
            return name
        if name in task.get("unprefixed", ()) or not name.startswith(banks):
            return name
        return str(mine + name[len(banks) :])
