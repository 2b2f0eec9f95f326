"""Side files: the config, tokenizer, licence and the like that make weights a model.

Small text and data files travel, whatever they are called; what stays behind (other weights,
pickles, code, pictures, files over the limits) is listed with the reason, so that nobody misses
it later. Code travels only when the user says so, on the way in and out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import xxhash

from randes_cli.errors import CheckpointError
from randes_cli.files.bank.folder import is_shard_folder
from randes_cli.files.kinds import (
    CODE,
    LOGS,
    RUN_LOGS,
    SUFFIXES,
    is_code,
    is_known_data,
    kind_of_content,
    kind_of_name,
    private,
)
from randes_cli.files.local.disk import entries, system_errors
from randes_cli.files.local.guard import note_input
from randes_cli.files.local.system import resolved
from randes_cli.limits import CONTROL
from randes_cli.specs import DEVICE_NAMES

#: Folders that are known by their names.
_NAMED = {"__pycache__": CODE, **dict.fromkeys(LOGS, RUN_LOGS)}
#: Largest side file, in bytes: the tokenizers of today stay below 40 MB.
MOST_BYTES = 64 * 2**20
#: Largest one whose name does not say that it is text or data.
MOST_UNKNOWN = 2**20
#: Side files of one folder, and their bytes together.
MOST_FILES, MOST_TOGETHER = 1000, 256 * 2**20
#: How many folders' side files a record may have: a task's own, and those that it is lent.
FOLDERS = 2
#: Folders that a side file may be deep, and names that a list of what stays behind has.
MOST_PARTS = 6
MOST_LISTED = 1000
#: Files of one kind in one folder that such a list names one by one.
_MOST_ALIKE = 20
#: Files that a line of notes names.
_SAID = 12

PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
#: Folders of a trainer's output that are states of training or models of their own.
STATES = re.compile(
    r"(checkpoint|global_step|step|epoch|pytorch_model_fsdp)[-_]?\d+", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SideFile:
    """One file to carry: where it is, the XXH3-128 of its content in hexadecimal, bytes.

    `data` is the content where it is not that of the file: a config that was set right.
    """

    path: Path
    digest: str
    size: int
    data: bytes | None = None

    def content(self) -> bytes:
        """Its bytes. Raises CheckpointError when they changed since it was found."""
        data = _read(self.path) if self.data is None else self.data
        if content_digest(data) != self.digest:
            raise CheckpointError(f"{self.path}: changed while the bank was made")
        return data

    def with_data(self, data: bytes) -> SideFile:
        return SideFile(self.path, content_digest(data), len(data), data)


def content_digest(data: bytes) -> str:
    """What a side file's content is called in a bank: its XXH3-128, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


def _read(path: Path) -> bytes:
    note_input(path)
    with system_errors(path, "reading"):
        return path.read_bytes()


def is_safe_name(name: str) -> bool:
    """Whether a path of a folder is made of letters that mean nothing to any file system."""
    parts = name.split("/")
    return len(parts) <= MOST_PARTS and all(
        PART.fullmatch(part) and not DEVICE_NAMES.fullmatch(part) and not part.endswith(".")
        for part in parts
    )


def is_side_file(name: str) -> bool:
    """Whether a name (``tokenizer/vocab.json``) may be carried and written; code included."""
    return is_safe_name(name) and (kind_of_name(name) is None or is_code(name))


def stays_in(path: Path, root: Path) -> bool:
    """Whether a path in a folder leads to a place in it, or from or into the Hub's cache.

    The cache's snapshots are links into the blobs beside them.
    """
    target, home = resolved(path), resolved(root)
    return target.is_relative_to(home) or (
        target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
    )


def walk(root: Path, apart: Collection[str] = ()) -> Iterator[tuple[Path, str | None]]:
    """What is in a folder, nearest first: files, and with a reason what is not looked into.

    `apart` are sub-folders that are models of their own.

    Raises a wrapped OSError.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop(0)
        for path in entries(folder):
            reason = _not_entered(path, root, apart) if path.is_dir() else None
            if path.name.startswith("."):
                yield path, "hidden"
            elif not path.is_dir() or reason:
                yield path, reason
            else:
                waiting.append(path)


def _not_entered(folder: Path, root: Path, apart: Collection[str]) -> str | None:
    """Why a folder below a model's is not looked into."""
    if folder.is_symlink():
        return "a link to a folder"
    if STATES.fullmatch(folder.name):
        return "a checkpoint of its own, or the state of a training run"
    if folder.name in _NAMED:
        return _NAMED[folder.name]
    if is_shard_folder(folder):
        return "the shards of a bank"
    inside = folder.relative_to(root)
    if inside.as_posix() in apart:
        return "named beside it, as a model of its own"
    return "too deep" if len(inside.parts) >= MOST_PARTS else None


class _Collecting:
    """Side files of one folder under way, within the limits."""

    def __init__(self, root: Path, code: bool, sizes: Mapping[str, int] | None) -> None:
        self.root, self.code, self.sizes = root, code, sizes
        self.files: dict[str, SideFile] = {}
        self.left_out: dict[str, str] = {}
        self.together = 0

    def look(self, path: Path, reason: str | None) -> None:
        """Take a file, or note why not."""
        name = path.relative_to(self.root).as_posix()
        reason = reason or self._refusal(name, path)
        if reason is None:
            content = _read(path)
            size = self._size(name, path)
            reason = kind_of_content(name, content)
            if reason is None:
                self.together += size
                self.files[name] = SideFile(path, content_digest(content), size)
                return
        self.left_out[shown(name) + ("/" if path.is_dir() else "")] = reason

    def drop_models(self, weights: Collection[Path]) -> None:
        """Leave out whole sub-folders whose weights stay behind: their configs are of nothing."""
        read = [f"{path.parent.relative_to(self.root).as_posix()}/" for path in weights]
        lost = {name.rpartition("/")[0] + "/" for name in self.left_out if name.endswith(SUFFIXES)}
        for folder in sorted(lost - {"/"}):
            if any(one.startswith(folder) for one in read):
                continue
            self.files = {n: f for n, f in self.files.items() if not n.startswith(folder)}
            kept = {n: why for n, why in self.left_out.items() if not n.startswith(folder)}
            self.left_out = {**kept, folder: "a model or an adapter of its own"}

    def drop_case_twins(self) -> None:
        """Leave out names that many systems could not tell from another: small letters stay."""
        kept: dict[str, str] = {}
        for name in sorted(self.files, key=lambda name: (name != name.lower(), name)):
            other = kept.setdefault(name.lower(), name)
            if other != name:
                del self.files[name]
                self.left_out[name] = f"differs from {other} in case alone"

    def _size(self, name: str, path: Path) -> int:
        return path.stat().st_size if self.sizes is None else self.sizes[name]

    def _refusal(self, name: str, path: Path) -> str | None:
        """Why a file stays behind, before its content is read."""
        if not path.is_file():
            return "a link to nothing" if path.is_symlink() else "no file"
        if not stays_in(path, self.root):
            return "a link that leads out of the folder"
        kind = kind_of_name(name) or private(name)
        if is_code(name):
            kind = None if self.code else f"{CODE}, see --trust-remote-code-files"
        if kind is None and not is_safe_name(name):
            kind = "a name with other characters than A-Z a-z 0-9 . _ -"
        return kind or self._too_much(name, path)

    def _too_much(self, name: str, path: Path) -> str | None:
        size = self._size(name, path)
        most = MOST_BYTES if is_known_data(name) else MOST_UNKNOWN
        if size > most:
            return f"{size} bytes, {most} at most"
        if len(self.files) >= MOST_FILES or self.together + size > MOST_TOGETHER:
            return f"more than {MOST_FILES} files or {MOST_TOGETHER} bytes together"
        return None


def shown(name: str) -> str:
    """A file's name as a bank may record it: text without control characters."""
    return CONTROL.sub("?", name.encode("utf-8", "replace").decode())


def find_side_files(
    root: Path,
    weights: Collection[Path],
    *,
    code: bool,
    apart: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> tuple[dict[str, SideFile], dict[str, str]]:
    """The side files of a folder by name, and the reason for each other file that it has.

    `weights` are the files that were read as the model, `apart` as in `walk`. With `sizes` the
    files lie elsewhere, and those that are empty here are judged by name and size alone.
    """
    found = _Collecting(root, code, sizes)
    for path, reason in walk(root, apart):
        if path not in weights:
            found.look(path, reason)
    found.drop_models(weights)
    found.drop_case_twins()
    return found.files, _listed(found.left_out)


def _listed(left_out: Mapping[str, str]) -> dict[str, str]:
    """The list, with many files of one kind in one folder as one entry, and not boundless."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, reason in left_out.items():
        folder, slash, file = name.rstrip("/").rpartition("/")
        ending = "/" if name.endswith("/") else PurePosixPath(file).suffix
        alike.setdefault((f"{folder}{slash}*{ending}", reason), []).append(name)
    made: dict[str, str] = {}
    for (pattern, reason), names in alike.items():
        if len(names) <= _MOST_ALIKE or pattern in made:
            made.update(dict.fromkeys(names, reason))
        else:
            made[pattern] = f"{len(names)} files, such as {names[0]}: {reason}"
    kept = dict(list(made.items())[:MOST_LISTED])
    if len(made) > len(kept):
        kept["…"] = f"{len(made) - len(kept)} more"
    return kept


def left_out_note(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """What stays behind in one line, or nothing."""
    names = [f"{name} ({reason})" for name, reason in left_out.items()]
    if not names:
        return ()
    more = f", and {len(names) - _SAID} more (--json has all)" if len(names) > _SAID else ""
    return (f"left out: {', '.join(names[:_SAID])}{more}",)
