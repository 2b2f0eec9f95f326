"""The file or files of a bank, from docs/bank-format.md alone: sections 1, 2, 7 and 15."""

from __future__ import annotations

import re
from pathlib import Path

from tests.independent.container import (
    ITEM_SIZE,
    Entry,
    chunk_digests,
    digest,
    need,
    parse_header,
    strict_json,
)


class Container:
    """One file, in memory and checked whole."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.entries, self.metadata, self.start = parse_header(data)
        for number, (name, entry) in enumerate(self.entries.items()):
            aligned = entry.first % ITEM_SIZE[entry.dtype] == 0 or entry.first == entry.end
            need(aligned, f"{name}: not aligned")
            if name.startswith("align/"):
                need(name == f"align/{number}" and not any(self.bytes_of(name)), name)
        self._verify()

    def bytes_of(self, name: str) -> bytes:
        entry = self.entries[name]
        return self.data[entry.first : entry.end]

    def _verify(self) -> None:
        need("checks" in self.entries, "no checks")
        checks = self.bytes_of("checks")
        need(len(checks) % 16 == 0 and checks[-16:] == digest(checks[:-16]), "checks")
        expected = [digest(self.data[: self.start])]
        for name, entry in self.entries.items():
            if name != "checks":
                expected += chunk_digests(entry.dtype, entry.shape, self.bytes_of(name))
        need(checks[:-16] == b"".join(expected), "a digest")


class Files:
    """The tensors of a bank, in one file or in an index and its shards."""

    def __init__(self, path: Path) -> None:
        index = Container(path.read_bytes())
        self.metadata, self.sharded = index.metadata, "shards" in index.entries
        self._of = dict.fromkeys(index.entries, index)
        self.entries: dict[str, Entry] = dict(index.entries)
        if self.sharded:
            self._read_shards(path, index)

    def _read_shards(self, path: Path, index: Container) -> None:
        """Section 15."""
        options = strict_json(index.bytes_of("shards"))
        need(type(options["room"]) is int and options["room"] % 8 == 0, "room")
        need(type(options["most"]) is int and options["most"] > 0, "most")
        names = [name for name in index.entries if name.startswith("shard/")]
        strange = set(index.entries) - {*names, "shards", "manifest", "checks"}
        need(not strange, f"an index with {strange}")
        self._of, self.entries = {}, {}
        for name in names:
            shard = _shard(path, name.removeprefix("shard/"), index.bytes_of(name))
            for key, entry in shard.entries.items():
                if key != "checks" and not key.startswith("align/"):
                    need(key not in self.entries, f"{key} is in two shards")
                    self._of[key], self.entries[key] = shard, entry
        for name in ("manifest", "checks"):
            self._of[name], self.entries[name] = index, index.entries[name]

    def bytes_of(self, name: str) -> bytes:
        return self._of[name].bytes_of(name)


def _shard(path: Path, name: str, copied: bytes) -> Container:
    """One shard, which is as the index says."""
    need(re.fullmatch("[0-9a-f]{32}", name), "the name of a shard")
    place = path.parent / f"{path.name}.d" / f"{name}.safetensors"
    need(place.is_file(), f"{name} is not there")
    made = Container(place.read_bytes())
    need(made.metadata == {"format": "randes-shard"}, "no shard")
    need(list(made.entries)[-1] == "checks", "checks is not last")
    checks = made.bytes_of("checks")
    need(made.data[: made.start] + checks == copied, f"{name}: not as the index says")
    need(checks[-16:].hex() == name, f"{name}: another digest")
    need("manifest" not in made.entries and "shards" not in made.entries, f"{name}: of an index")
    return made
