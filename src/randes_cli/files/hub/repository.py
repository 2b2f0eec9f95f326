"""Models on the Hugging Face Hub, through its own client: one commit, only the files needed.

The client brings the user's cache, token, endpoint, proxies, offline mode and progress bars; its
`HfFileSystem` lists and reads by range. It takes long to load: it is imported where it is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from randes_cli.errors import BankDamaged, HubError, RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.shard_files import MissingShard, ShardFile
from randes_cli.files.bank.shards import shard_file
from randes_cli.files.checkpoint.checkpoint import DEFAULT_OPTIONS, Checkpoint
from randes_cli.files.elsewhere import Elsewhere, Found, find_model, open_elsewhere
from randes_cli.files.hub.cache import (
    cached_file,
    remember,
    resolve_cached,
    snapshot_folder,
    stays_inside,
)
from randes_cli.files.hub.errors import endpoint, hub_call, hub_errors, load_client, not_cached
from randes_cli.files.hub.ref import COMMIT, HubRef
from randes_cli.files.kinds import BANK_SUFFIX
from randes_cli.files.stores.remote import Fetch, RangedBytes, RemoteFile
from randes_cli.files.weight_file import TensorFile, WeightFile
from randes_cli.specs import OpenOptions

#: Before anybody looked.
NOTHING = Found(())


@dataclass(frozen=True)
class HubModel:
    """A model (or a bank) at one commit. Only the list of its files was read, and small JSON.

    Attributes:
        sizes: bytes of every file of the repository (offline: of every cached one).
        offline: only the cache was looked at.
        found: its weights, side files, and what stays there.
    """

    ref: HubRef
    commit: str
    sizes: Mapping[str, int]
    offline: bool
    found: Found = NOTHING

    @property
    def source(self) -> str:
        """What a manifest records; `parse_ref` reads it again."""
        return str(HubRef(self.ref.repo, self.commit, self.ref.path))

    def bytes_to_download(self) -> int:
        """Bytes of the weight and side files that the cache lacks."""
        names = (*self.found.weights, *self.found.side_files)
        return sum(self.sizes[name] for name in names if self.cached(name) is None)

    def cached(self, name: str) -> Path | None:
        """Where the cache has this file of this commit."""
        return cached_file(self.ref.repo, self.commit, name)

    @cached_property
    def files(self) -> Any:
        from huggingface_hub import HfFileSystem, constants

        return HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)

    def there(self) -> Elsewhere:
        """Its files, as a folder's are looked at."""
        root = str(HubRef(self.ref.repo, self.ref.revision))
        return Elsewhere(root, self.ref.path, self.sizes, self._get, self.open_file, ":")

    def _get(self, name: str, target: Path) -> None:
        from huggingface_hub import hf_hub_download

        repo, commit = self.ref.repo, self.commit
        found = self.cached(name) or hub_call(
            lambda: hf_hub_download(repo, name, revision=commit, library_name="randes"),
            f"{self.ref}: {name}",
            repo,
        )
        shutil.copyfile(found, target)

    def open_file(self, name: str) -> WeightFile:
        """Open a safetensors file: the cached one, or the one that is there."""
        cached = self.cached(name)
        if cached is not None:
            return TensorFile(cached)
        return RemoteFile(self._path(name), self.sizes[name], self._ranges(name))

    def open_shard(self, name: str) -> ShardFile:
        """Open a bank's shard in the same way."""
        cached = self.cached(name)
        if cached is not None:
            return TensorFile(cached)
        if name not in self.sizes:
            problem = f"{self.ref}: its shard {name} is missing; push it again"
            return MissingShard(BankDamaged(problem))
        return RangedBytes(self._path(name), self._ranges(name))

    def _path(self, name: str) -> Path:
        return Path(f"{self.ref.repo}@{self.commit[:12]}") / name

    def _ranges(self, name: str) -> Fetch:
        """What reads a file by range. Raises HubError."""
        if self.offline:
            raise not_cached(f"{self.ref}: {name}")
        path, inside = self._path(name), f"{self.ref.repo}@{self.commit}/{name}"

        def fetch(start: int, end: int) -> bytes:
            with hub_errors(str(path), self.ref.repo):  # the client tries again by itself
                found: bytes = file._fetch_range(start, end)  # what fsspec asks of such files
            return found

        how = {"cache_type": "none", "size": self.sizes[name]}
        file = hub_call(lambda: self.files.open(inside, "rb", **how), str(path), self.ref.repo)
        return fetch


# Looking


def open_hub(ref: HubRef, options: OpenOptions = DEFAULT_OPTIONS) -> HubModel:
    """Resolve the revision to a commit and find weights and side files. Downloads small JSON.

    Raises HubError, and CheckpointError where the repository has no weights that randes reads.
    """
    model = _resolve(ref)
    sizes, path = model.sizes, ref.path
    if path and not any(n == path or n.startswith(f"{path}/") for n in sizes):
        if model.offline:
            raise not_cached(str(ref))
        raise HubError(f"{ref}: {ref.repo} has no such file or folder at this revision")
    try:
        with model.there().outline() as root:
            found = find_model(model.there(), root, options)
    except RandesError as error:
        if model.offline and not isinstance(error, HubError):
            raise not_cached(str(ref)) from error  # what is missing may be missing here alone
        raise
    return HubModel(ref, model.commit, sizes, model.offline, found)


def open_hub_bank(ref: HubRef) -> HubModel:
    """The same for a bank: the file that the reference names, or the only one of its folder."""
    model = _resolve(ref)
    folder = PurePosixPath(ref.path)
    banks = [ref.path] if ref.path in model.sizes else []
    banks = banks or [
        n for n in model.sizes if n.endswith(BANK_SUFFIX) and PurePosixPath(n).parent == folder
    ]
    if len(banks) > 1:
        raise HubError(f"{ref}: has several banks ({', '.join(banks[:5])}); name one after a colon")
    if not banks:
        if model.offline:
            raise not_cached(str(ref))
        raise HubError(f"{ref}: has no bank (a file that ends with {BANK_SUFFIX})")
    named = HubRef(ref.repo, ref.revision, banks[0])
    shards = tuple(name for name in model.sizes if name.startswith(f"{banks[0]}.d/"))
    return HubModel(named, model.commit, model.sizes, model.offline, Found((banks[0],), shards))


def has_bank(ref: HubRef) -> bool:
    """Whether a repository's file, or its only bank, is what a reference means."""
    if ref.path:
        return ref.path.endswith(BANK_SUFFIX)
    names = _resolve(ref).sizes
    return any("/" not in name and name.endswith(BANK_SUFFIX) for name in names)


def _resolve(ref: HubRef) -> HubModel:
    """The commit of a reference and the sizes of its files; from the cache when offline."""
    load_client()
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return HubModel(ref, *resolve_cached(ref), True)
    commit = ref.revision
    if commit is None or not COMMIT.fullmatch(commit):
        api, timeout = HfApi(library_name="randes"), constants.HF_HUB_DOWNLOAD_TIMEOUT
        info = hub_call(
            lambda: api.model_info(ref.repo, revision=ref.revision, timeout=timeout),
            str(ref),
            ref.repo,
        )
        commit = info.sha
    if commit is None:
        raise HubError(f"{ref}: {endpoint()} names no commit for it")
    model, root = HubModel(ref, commit, {}, False), f"{ref.repo}@{commit}"
    found = hub_call(lambda: model.files.find(root, detail=True), str(ref), ref.repo)
    names = {name.removeprefix(f"{root}/"): entry["size"] for name, entry in found.items()}
    return HubModel(ref, commit, {n: size for n, size in names.items() if stays_inside(n)}, False)


def is_cached(ref: HubRef) -> bool:
    """Whether the cache has weights of a commit, so that they can be read without a download."""
    try:
        there = HubModel(ref, *resolve_cached(ref), True).there()
        with there.outline() as root:
            return bool(find_model(there, root).weights)
    except RandesError:
        return False


# Reading


def remote_checkpoint(model: HubModel, options: OpenOptions = DEFAULT_OPTIONS) -> Checkpoint:
    """The model's tensors from their headers alone, checked as those of a local checkpoint are.

    Cached files are read here, the others by range, so that what does not fit is refused before
    the data move. Raises HubError, CheckpointError.
    """
    return open_elsewhere(model.there(), options, called=model.source)


def open_remote_bank(ref: HubRef, *, lenient: bool = False) -> BankFile:
    """A bank on the Hub, of which only what is asked for is read."""
    model = open_hub_bank(ref)
    index = model.found.weights[0]

    def open_shard(name: str, _: int) -> ShardFile:
        return model.open_shard(f"{index}.d/{shard_file(name)}")

    file = model.open_file(index)
    return BankFile(Path(str(model.ref)), file, open_shard, lenient=lenient)


# Fetching


def fetch(model: HubModel) -> Path:
    """Download the weight files and the side files; what the cache has is not asked for again.

    Returns the folder or file that was named, in the cache. Raises HubError, NoSpace.
    """
    from huggingface_hub import snapshot_download

    repo, commit = model.ref.repo, model.commit
    found = model.found
    wanted = sorted({*found.weights, *model.there().telling(), *found.side_files})
    if not model.offline and any(model.cached(name) is None for name in wanted):
        hub_call(
            lambda: snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[escape(name) for name in wanted],
                library_name="randes",
            ),
            str(model.ref),
            repo,
        )
    missing = next((name for name in wanted if model.cached(name) is None), None)
    if missing is not None:
        raise not_cached(f"{model.ref}: {missing}")
    if not model.offline:
        remember(repo, model.ref.revision or "main", commit)
    return snapshot_folder(repo, commit) / model.ref.path
