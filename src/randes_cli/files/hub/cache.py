"""The client's own cache on disk, whose layout is part of the client's manual.

``models--org--name/refs/<revision>`` holds a commit, ``snapshots/<commit>/`` its files.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from randes_cli.files.hub.errors import hub_errors, not_cached
from randes_cli.files.hub.ref import COMMIT, HubRef


def _repository_folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def snapshot_folder(repo: str, commit: str) -> Path:
    return _repository_folder(repo) / "snapshots" / commit


def cached_file(repo: str, commit: str, name: str) -> Path | None:
    path = snapshot_folder(repo, commit) / name
    return path if path.is_file() else None


def stays_inside(name: str) -> bool:
    """Whether a name that a server or user gave stays inside a folder that it is put in."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\\" not in name


def resolve_cached(ref: HubRef) -> tuple[str, dict[str, int]]:
    """The commit that the cache holds for a revision, and the files that it has of it."""
    from huggingface_hub import snapshot_download

    if not stays_inside(ref.revision or "main"):
        raise not_cached(str(ref))
    with hub_errors(str(ref), ref.repo):
        root = Path(snapshot_download(ref.repo, revision=ref.revision, local_files_only=True))
    files = {p.relative_to(root).as_posix(): p.stat() for p in root.rglob("*") if p.is_file()}
    if not files:
        raise not_cached(str(ref))
    return root.name, {name: found.st_size for name, found in files.items()}


def remember(repo: str, revision: str, commit: str) -> None:
    """Note which commit a revision is, as the client does, so that it is found when offline."""
    if COMMIT.fullmatch(revision) or not stays_inside(revision):
        return
    path = _repository_folder(repo) / "refs" / revision
    with suppress(OSError):  # a cache that cannot be written serves all the same
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
