"""Models on the Hugging Face Hub, through its own client: one commit, only the files needed.

The client brings the user's cache, token, endpoint, proxies, offline mode and progress bars.
It is imported where it is used: it takes longer to load than most of randes' work.

Which files of a repository are its weights is decided by `find_parts`, as for a folder: it is
shown a passing folder of empty files with the repository's names, and its small JSON files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path, PurePosixPath

from randes_cli.errors import HubError, RandesError
from randes_cli.files.bank import BankFile
from randes_cli.files.checkpoint import (
    DEFAULT_OPTIONS,
    Checkpoint,
    TensorFile,
    WeightFile,
    find_parts,
    open_checkpoint,
)
from randes_cli.files.folders import PICKLES, SUFFIXES
from randes_cli.files.hub_cache import (
    cached_file,
    remember,
    resolve_cached,
    snapshot_folder,
    stays_inside,
)
from randes_cli.files.hub_errors import endpoint, hub_errors, not_cached
from randes_cli.files.hub_ref import BANK_SUFFIX, COMMIT, HubRef
from randes_cli.files.passing import passing_folder
from randes_cli.files.remote import RemoteFile
from randes_cli.files.side_files import STATES, find_side_files
from randes_cli.specs import OpenOptions

#: JSON files that say which files are the weights and whether they can be read.
_TELLING = re.compile(
    r"(adapter_|quantize_|hf_quant_|router_)?config\.json|model_index\.json|modules\.json"
    r"|.+\.index(\.[\w-]+)?\.json"
)
#: Headers that are asked for at a time.
_WORKERS = 8


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model (or a bank) at one commit. Only the list of its files was read, and small JSON.

    Attributes:
        sizes: bytes of every file of the repository (offline: of every cached one).
        weights: the files that hold the tensors.
        telling: the JSON files that said so.
        side_files: config, tokenizer and the like.
        left_out: the other files that it has, each with the reason why it stays there.
        offline: only the cache was looked at.
    """

    ref: HubRef
    commit: str
    sizes: Mapping[str, int]
    weights: tuple[str, ...]
    telling: tuple[str, ...]
    offline: bool
    side_files: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What a manifest records; `parse_ref` reads it again."""
        return str(HubRef(self.ref.repo, self.commit, self.ref.path))

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files."""
        return sum(self.sizes[name] for name in self.weights)

    def bytes_to_download(self) -> int:
        """Bytes of the weight and side files that the cache lacks."""
        names = (*self.weights, *self.side_files)
        return sum(self.sizes[name] for name in names if self.cached(name) is None)

    def cached(self, name: str) -> Path | None:
        """Where the cache has this file of this commit."""
        return cached_file(self.ref.repo, self.commit, name)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model in the cache.

    Attributes:
        path: for `open_checkpoint` (or `BankFile`): the folder or file that was named.
        source: what a manifest records.
    """

    path: Path
    source: str


# Looking


def open_hub(ref: HubRef, options: OpenOptions = DEFAULT_OPTIONS) -> HubModel:
    """Resolve the revision to a commit and find weights and side files. Downloads small JSON.

    Raises HubError, and CheckpointError where the repository has no weights that randes reads.
    """
    commit, sizes, offline = _resolve(ref)
    if ref.path and not any(n == ref.path or n.startswith(f"{ref.path}/") for n in sizes):
        if offline:
            raise not_cached(str(ref))
        raise HubError(f"{ref}: {ref.repo} has no such file or folder at this revision")
    telling = _telling(ref, sizes)
    for name in telling:
        _download(ref, commit, name)
    model = HubModel(ref, commit, sizes, (), telling, offline)
    with _outline(model) as root:
        path = root / ref.path
        parts = find_parts(path, options)
        weights = tuple(p.relative_to(root).as_posix() for part in parts for p in part.paths)
        found: Collection[str] = ()
        left_out: Mapping[str, str] = {}
        if path.is_dir() and not options.safetensors_only:
            used = {file for part in parts for file in part.files()}
            here = f"{ref.path}/" if ref.path else ""
            inside = {n.removeprefix(here): size for n, size in sizes.items() if n.startswith(here)}
            code = options.trust_remote_code_files
            found, left_out = find_side_files(path, used, code=code, sizes=inside)
        side_files = tuple((path / name).relative_to(root).as_posix() for name in found)
    return replace(model, weights=weights, side_files=side_files, left_out=left_out)


def open_hub_bank(ref: HubRef) -> HubModel:
    """The same for a bank: the file that the reference names, or the only one of its folder."""
    commit, sizes, offline = _resolve(ref)
    if ref.path in sizes:
        return HubModel(ref, commit, sizes, (ref.path,), (), offline)
    folder = PurePosixPath(ref.path)
    banks = [n for n in sizes if n.endswith(BANK_SUFFIX) and PurePosixPath(n).parent == folder]
    if len(banks) > 1:
        raise HubError(f"{ref}: has several banks ({', '.join(banks[:5])}); name one after a colon")
    if not banks:
        if offline:
            raise not_cached(str(ref))
        raise HubError(f"{ref}: has no bank (a file that ends with {BANK_SUFFIX})")
    named = HubRef(ref.repo, ref.revision, banks[0])
    return HubModel(named, commit, sizes, (banks[0],), (), offline)


def _resolve(ref: HubRef) -> tuple[str, dict[str, int], bool]:
    """The commit of a reference and the sizes of its files; from the cache when offline."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    if constants.HF_HUB_OFFLINE:
        return resolve_cached(ref)
    api = HfApi(library_name="randes")
    with hub_errors(str(ref), ref.repo):
        commit = ref.revision
        if commit is None or not COMMIT.fullmatch(commit):
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            commit = api.model_info(ref.repo, revision=ref.revision, timeout=timeout).sha
        if commit is None:
            raise HubError(f"{ref}: {endpoint()} names no commit for it")
        tree = api.list_repo_tree(ref.repo, recursive=True, revision=commit)
        sizes = {file.path: file.size for file in tree if isinstance(file, RepoFile)}
    return commit, {name: size for name, size in sizes.items() if stays_inside(name)}, False


def is_cached(ref: HubRef) -> bool:
    """Whether the cache has weights of a commit, so that they can be read without a download."""
    try:
        commit, sizes, _ = resolve_cached(ref)
        model = HubModel(ref, commit, sizes, (), _telling(ref, sizes), True)
        with _outline(model) as root:
            return bool(find_parts(root / ref.path))
    except RandesError:
        return False


def _telling(ref: HubRef, sizes: Collection[str]) -> tuple[str, ...]:
    """The JSON files to read: of the folder itself, and of those below it that have weights."""
    if ref.path in sizes:
        return (ref.path,) if _TELLING.fullmatch(PurePosixPath(ref.path).name) else ()
    root = PurePosixPath(ref.path)
    below = {PurePosixPath(name).parent for name in sizes if name.endswith((*SUFFIXES, *PICKLES))}
    folders = {root}
    folders |= {
        folder
        for folder in below
        if folder.is_relative_to(root) and not any(map(STATES.fullmatch, folder.parts))
    }
    return tuple(
        name
        for name in sizes
        if PurePosixPath(name).parent in folders and _TELLING.fullmatch(PurePosixPath(name).name)
    )


@contextmanager
def _outline(model: HubModel) -> Iterator[Path]:
    """A passing folder with the repository's names: empty files, but for the telling ones.

    An error inside names the repository, not the passing folder. Offline, what is missing
    there may only be missing from the cache.
    """
    with passing_folder() as root:
        for name in model.sizes:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            found = model.cached(name) if name in model.telling else None
            if found is None:
                path.touch()
            else:
                shutil.copyfile(found, path)
        try:
            yield root
        except HubError:
            raise
        except RandesError as error:
            if model.offline and not model.weights:
                raise not_cached(str(model.ref)) from error
            here = HubRef(model.ref.repo, model.ref.revision)
            if str(root) not in str(error):
                raise
            text = str(error).replace(f"{root}/", f"{here}:").replace(str(root), str(here))
            raise type(error)(text) from error


# Reading


@contextmanager
def remote_checkpoint(
    model: HubModel, options: OpenOptions = DEFAULT_OPTIONS
) -> Iterator[Checkpoint]:
    """The model's tensors from their headers alone, checked as those of a local checkpoint are.

    Cached files are read here, the others by range, so that what does not fit is refused before
    the data move; `Checkpoint.read` reads by range, too. Side files are left out. Pickled
    weights have no header: they are fetched. Raises HubError, CheckpointError.
    """
    if not all(name.endswith(SUFFIXES) for name in model.weights):
        fetched = fetch(model)
        with open_checkpoint(str(fetched.path), options, called=fetched.source) as found:
            yield found
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_WORKERS) as pool:
        files = list(pool.map(lambda name: _open_file(model, name), model.weights))
    opened = dict(zip(model.weights, files, strict=True))
    with (
        _outline(model) as root,
        open_checkpoint(
            str(root / model.ref.path),
            replace(options, safetensors_only=True),
            called=model.source,
            open_file=lambda path: opened[path.relative_to(root).as_posix()],
        ) as found,
    ):
        yield found


def _open_file(model: HubModel, name: str) -> WeightFile:
    cached = model.cached(name)
    if cached is not None:
        return TensorFile(cached)
    if model.offline:
        raise not_cached(f"{model.ref}: {name}")
    return RemoteFile(model.ref.repo, model.commit, name, model.sizes[name])


def open_remote_bank(ref: HubRef) -> BankFile:
    """A bank on the Hub, of which only what is asked for is read: enough to describe it."""
    model = open_hub_bank(ref)
    return BankFile(Path(str(model.ref)), _open_file(model, model.weights[0]))


# Fetching


def fetch(model: HubModel) -> Fetched:
    """Download the weight files and the side files; what the cache has is not asked for again.

    Raises HubError, NoSpace.
    """
    from huggingface_hub import snapshot_download

    repo, commit = model.ref.repo, model.commit
    wanted = sorted({*model.weights, *model.telling, *model.side_files})
    if not model.offline and any(model.cached(name) is None for name in wanted):
        with hub_errors(str(model.ref), repo):
            snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[escape(name) for name in wanted],
                library_name="randes",
            )
    missing = next((name for name in wanted if model.cached(name) is None), None)
    if missing is not None:
        raise not_cached(f"{model.ref}: {missing}")
    if not model.offline:
        remember(repo, model.ref.revision or "main", commit)
    return Fetched(snapshot_folder(repo, commit) / model.ref.path, model.source)


def _download(ref: HubRef, commit: str, name: str) -> None:
    from huggingface_hub import hf_hub_download

    if cached_file(ref.repo, commit, name) is None:
        with hub_errors(f"{ref}: {name}", ref.repo):
            hf_hub_download(ref.repo, name, revision=commit, library_name="randes")
