"""`push`: a bank onto the Hugging Face Hub, with a model card that says what it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from randes_cli.build.convert import convert
from randes_cli.core.prediction.verdict import sentences
from randes_cli.errors import HubError, UsageError, counted
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.shards import is_shard_file, most_bytes, shard_file, shard_folder
from randes_cli.files.hub.errors import endpoint, hub_errors, load_client
from randes_cli.files.hub.ref import SCHEME, parse_ref
from randes_cli.files.kinds import BANK_SUFFIX
from randes_cli.files.location import RemotePath, as_place
from randes_cli.files.passing import passing_folder
from randes_cli.files.sources import require_same
from randes_cli.limits import StrPath, as_source
from randes_cli.ops.card import CARD, MARKER, licence_of, model_card
from randes_cli.ops.describe import BankReport, describe
from randes_cli.ops.verify import damaged_bank, verify
from randes_cli.specs import RunOptions, check_shard_size

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi


#: Characters of the longest note in a collection.
_LONGEST_NOTE = 500


@dataclass(frozen=True, slots=True)
class PushReport:
    """What `push` did.

    Attributes:
        commit: None where nothing was sent.
        card: False where the repository's own card stayed.
        files: those of the bank: an index and shards, or one.
        license: what the card says; None where nobody said.
        collection: the address of the collection that the bank is in.
        dry_run: whether only this was said.
        new: whether the repository is made.
    """

    repo: str
    url: str
    commit: str | None
    file: str
    bytes: int
    card: bool
    files: int = 1
    license: str | None = None
    collection: str | None = None
    dry_run: bool = False
    new: bool = False


def push(
    bank: StrPath,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    max_shard_size: int | None = None,
    license: str | None = None,
    collection: str | None = None,
    dry_run: bool = False,
) -> PushReport:
    """Upload a bank and a model card to the Hub in one commit; the repository is made if need be.

    `private` decides for a new repository only; `revision` is a branch, made where missing. A
    bank above `max_shard_size` bytes (None: 50 GB, the Hub's largest file) is uploaded in shards,
    of which there is a copy beside it meanwhile. Every byte is checked before the first is sent.
    `license` is what the card says (None: what the models' own cards do, or the base's);
    `collection` a title, of one that is made where missing, or the slug of one. A dry run asks the
    Hub who you are and what is there, and sends nothing.
    Raises UsageError for a bad name, BankDamaged, MismatchError (it changed meanwhile), HubError.
    """
    load_client()
    from huggingface_hub import HfApi

    bank, name = _local(bank, repo), _repository(repo)
    check_shard_size(max_shard_size)
    api = HfApi(library_name="randes")
    report, license, fingerprint = _described(bank, repo, api, license)
    target = bank.name if bank.name.endswith(BANK_SUFFIX) else bank.name + BANK_SUFFIX
    with hub_errors(name, name):
        there = api.repo_exists(name)
    sent = partial(PushReport, repo=name, url=f"{endpoint()}/{name}", file=target, new=not there)
    sent = partial(sent, bytes=report.bank_bytes, dry_run=dry_run)
    if dry_run:
        with hub_errors(name, name):
            api.whoami()
            ours = not there or _card_is_ours(api, name, _tip(api, name, revision))
        files = _files(bank, max_shard_size)
        return sent(commit=None, card=ours, files=files, license=license if ours else None)
    with bank_to_push(bank, max_shard_size) as file, hub_errors(name, name):
        ours = _prepared(api, name, private=private, revision=revision)
        write = partial(model_card, report, repo=name, file=target, license=license)
        commit, files = _commit(
            api,
            name,
            bank_changes(api, name, revision, file, target),
            card=partial(write, revision=revision) if ours else None,
            message=message or f"Bank of {counted(len(report.tasks), 'task')}",
            revision=revision,
            still=partial(require_same, bank, fingerprint, "it was pushed"),
        )
        place = None if collection is None else _collect(api, name, collection, report)
    license = license if ours else None
    return sent(commit=commit, card=ours, files=files, license=license, collection=place)


def _described(
    bank: Path, repo: str, api: HfApi, license: str | None
) -> tuple[BankReport, str | None, bytes]:
    """What the bank holds, its licence, its fingerprint. Raises HubError where none may ask."""
    from huggingface_hub import constants

    with BankFile(bank) as opened:
        report = describe(opened)
        if constants.HF_HUB_OFFLINE:
            raise HubError(f"{repo}: HF_HUB_OFFLINE is set; unset it to push")
        return report, license or licence_of(opened, api), opened.store.fingerprint


def _prepared(api: HfApi, repo: str, *, private: bool, revision: str | None) -> bool:
    """Make repository and branch where they are missing; whether the card there is ours."""
    api.create_repo(repo, private=private or None, exist_ok=True)
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
    return _card_is_ours(api, repo, revision)


def _commit(
    api: HfApi,
    repo: str,
    changes: list[CommitOperationAdd | CommitOperationDelete],
    *,
    card: Callable[..., str] | None,
    message: str,
    revision: str | None,
    still: Callable[[], None],
) -> tuple[str, int]:
    """Send a bank's files, and its card in the same commit; the commit, and how many they are.

    `still` is asked before the commit: it raises where what was sent may be of two banks.
    """
    from huggingface_hub import CommitOperationAdd

    sent = [one for one in changes if isinstance(one, CommitOperationAdd)]
    files = len(sent)
    try:
        api.preupload_lfs_files(repo, sent, revision=revision)
    finally:  # a shard that is gone is gone for a reason
        still()
    if card is not None:
        changes = [*changes, CommitOperationAdd(CARD, card(shards=files > 1).encode())]
    made = api.create_commit(repo, changes, commit_message=message, revision=revision)
    return made.oid, files


def _local(bank: StrPath, repo: str) -> Path:
    """Where the bank lies here. Raises UsageError where it is, or is to go, to a store."""
    place, there = as_place(as_source(bank)), as_place(repo)
    if isinstance(there, RemotePath) and there.scheme != "hf":
        raise UsageError(
            f"{there}: push goes to the Hub, to a repository org/name; into a store a bank goes "
            f"by: randes convert {place} -o {there}"
        )
    if isinstance(place, RemotePath):
        raise UsageError(
            f"{place}: push takes a bank of this machine; copy it here first: "
            f"randes convert {place} -o {place.name or 'bank.randes'}"
        )
    return place


def _repository(repo: str) -> str:
    """The id of a repository. Raises UsageError for another name."""
    ref = None
    with contextlib.suppress(UsageError):
        ref = parse_ref(SCHEME + repo.removeprefix(SCHEME))
    if ref is None or ref.revision or ref.path:
        raise UsageError(f"{repo}: say org/name; a branch goes to --revision")
    return ref.repo


def _collect(api: HfApi, repo: str, collection: str, report: BankReport) -> str:
    """Put a repository into a collection of its owner's; the collection's address."""
    slug = collection
    if "/" not in collection:
        owner = repo.partition("/")[0]
        made = api.create_collection(collection, namespace=owner, exists_ok=True)
        slug = made.slug
    note = f"{counted(len(report.tasks), 'task')}; {'; '.join(sentences(report.tasks))}"
    api.add_collection_item(slug, repo, "model", note=note[:_LONGEST_NOTE], exists_ok=True)
    return f"{endpoint()}/collections/{slug}"


def _card_is_ours(api: HfApi, repo: str, revision: str | None) -> bool:
    """Whether the repository has no card yet, or one that `push` wrote."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        found = api.hf_hub_download(repo, CARD, revision=revision)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return True
    return MARKER in Path(found).read_text(encoding="utf-8", errors="replace")


def _tip(api: HfApi, repo: str, revision: str | None) -> str | None:
    """A branch that is there; the one that another is made from where it is not."""
    return revision if revision and api.revision_exists(repo, revision) else None


def _files(bank: Path, most: int | None) -> int:
    """How many files `bank_to_push` gives."""
    with BankFile(bank) as file:
        cut = most_bytes(most, file.size, file.most)
        if cut is None or cut == file.most:
            return 1 + len(file.store.shards)
    return convert(bank, bank, max_shard_size=cut, dry_run=True).files


@contextlib.contextmanager
def bank_to_push(bank: Path, most: int | None) -> Iterator[Path]:
    """The bank as it is uploaded: itself, or a copy beside it in shards, which goes afterwards.

    A bank in one file that is larger than the Hub takes is cut, too.
    """
    with BankFile(bank) as file:
        cut = most_bytes(most, file.size, file.most)
        if cut == file.most:
            cut = None
        found = verify(file, RunOptions()) if cut is None else None
    if found is not None:
        if not found.sound:
            raise damaged_bank(bank, found)
        yield bank
        return
    with passing_folder(bank.absolute().parent) as folder:
        copy = folder / bank.name
        convert(bank, copy, max_shard_size=cut)
        yield copy


def bank_changes(
    api: HfApi, repo: str, revision: str | None, bank: Path, name: str
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit does: the index and its shards come, shards that it does not name go."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    with BankFile(bank) as file:
        shards = [shard_file(one) for one in file.store.shards]
    folder, place = shard_folder(bank), f"{name}.d"
    made: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationAdd(name, bank)]
    made += [CommitOperationAdd(f"{place}/{shard}", folder / shard) for shard in shards]
    for entry in api.list_repo_tree(repo, recursive=True, revision=revision):
        parent, _, file_name = entry.path.rpartition("/")
        old = isinstance(entry, RepoFile) and parent == place and is_shard_file(file_name)
        if old and file_name not in shards:
            made.append(CommitOperationDelete(entry.path))
    return made
