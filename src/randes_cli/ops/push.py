"""`push`: a bank onto the Hugging Face Hub, with a model card that says what it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from randes_cli.errors import HubError, UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.hub_errors import endpoint, hub_errors
from randes_cli.files.hub_ref import BANK_SUFFIX, SCHEME, parse_ref, recorded_ref
from randes_cli.ops.describe import BankReport, describe
from randes_cli.ops.push_files import bank_changes, bank_to_push
from randes_cli.specs import check_shard_size

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: In every card that `push` wrote; a card without it is somebody's own and stays.
MARKER = (
    "<!-- made by randes push; without this line the card is yours and will not be replaced -->"
)
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class PushReport:
    """What `push` did. `card` is False where the repository's own card stayed.

    `files` are those of the bank: an index and shards, or one.
    """

    repo: str
    url: str
    commit: str
    file: str
    bytes: int
    card: bool
    files: int = 1


def push(
    bank: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    max_shard_size: int | None = None,
) -> PushReport:
    """Upload a bank and its card in one commit, to a repository that is made where missing.

    A bank that is larger than `max_shard_size` bytes (None: than the Hub's largest file) goes in
    shards, of which there is a copy beside it meanwhile.

    `private` decides for a new repository only; `revision` is a branch, made where missing.
    Raises UsageError for a bad name, what `BankFile` raises, and HubError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    ref = parse_ref(SCHEME + repo.removeprefix(SCHEME))
    if ref is None or ref.revision or ref.path:
        raise UsageError(f"{repo}: say org/name; a branch goes to --revision")
    check_shard_size(max_shard_size)
    with BankFile(bank) as opened:
        report = describe(opened)
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo}: HF_HUB_OFFLINE is set; unset it to push")
    name = bank.name if bank.name.endswith(BANK_SUFFIX) else bank.name + BANK_SUFFIX
    api = HfApi(library_name="randes")
    with bank_to_push(bank, max_shard_size) as file, hub_errors(ref.repo, ref.repo):
        api.create_repo(ref.repo, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(ref.repo, branch=revision, exist_ok=True)
        ours = _card_is_ours(api, ref.repo, revision)
        changes = bank_changes(api, ref.repo, revision, file, name)
        count = sum(isinstance(one, CommitOperationAdd) for one in changes)
        if ours:
            card = model_card(report, repo=ref.repo, file=name)
            changes.append(CommitOperationAdd(CARD, card.encode()))
        made = api.create_commit(
            ref.repo,
            changes,
            commit_message=message or f"Bank of {len(report.tasks)} tasks",
            revision=revision,
        )
    return PushReport(
        repo=ref.repo,
        url=f"{endpoint()}/{ref.repo}",
        commit=made.oid,
        file=name,
        bytes=report.bank_bytes,
        card=ours,
        files=count,
    )


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


def model_card(report: BankReport, *, repo: str, file: str) -> str:
    """The text of a card: YAML front matter, then what the bank holds and how to get it out."""
    first = report.tasks[0].name if report.tasks else "TASK"
    outside = (
        "\nThe base is **not** in the file: to unpack, have it at hand "
        f"({_code(report.base_source)}, or say `--base PATH`).\n"
        if report.base_storage == "reference"
        else ""
    )
    return f"""---
{_front_matter(report)}---
{MARKER}

# {repo.split("/")[1]}

{_code(file)} holds {len(report.tasks)} models fine-tuned from one base in
{_size(report.bank_bytes)}; as separate checkpoints they take {_size(report.separate_bytes)}. It is
a *bank*: the base and one superposition of all the models' changes to it, from which `randes`
gives any of them back.

| task | predicted cosine | λ | superposed | exact | unchanged | from |
|---|---:|---:|---:|---:|---:|---|
{_rows(report)}

- base: {_code(report.base_source)}, {_size(report.base_bytes)}, {report.base_tensors} tensors
- transform: {_code(report.transform)} (shuffle {report.shuffle}, signs {report.signs}), targets \
{_code(report.targets)}, {report.bits} bits, seed {report.seed}
{outside}
## Unpacking

```sh
pip install randes-cli
randes inspect {repo}:{file}
randes unpack {repo}:{file} --task {first} -o {first}.safetensors
randes unpack {repo}:{file} --all -o models
```

```python
from huggingface_hub import hf_hub_download
from randes_cli import Bank

with Bank.open(hf_hub_download("{repo}", "{file}")) as bank:
    state_dict = bank.retrieve("{first}")
```

## What to expect

Retrieval is approximate: superposed tensors come back as the fine-tuned ones plus what is left of
the other tasks. The predicted cosine compares a retrieved change of the weights with the true one
(1 is exact); it is computed from norms and is no measure of accuracy. Exact and unchanged tensors
come back bit for bit. Evaluate a retrieved model on its own task before you rely on it.
"""


def _front_matter(report: BankReport) -> str:
    """YAML; strings are written as JSON, which YAML reads."""
    lines = ["library_name: randes"]
    base = recorded_ref(report.base_source)
    if base is not None:
        lines.append(f"base_model: {json.dumps(base.repo)}")
    lines += ["tags:", "- randes", "- model-compression", "- multi-task"]
    return "".join(f"{line}\n" for line in lines)


def _rows(report: BankReport) -> str:
    return "\n".join(
        f"| {task.name} | {task.predicted_cosine:.3f} | {task.coefficient:g} | {task.superposed} "
        f"| {task.own} | {task.unchanged} | {_code(report.sources.get(task.name, ''))} |"
        for task in report.tasks
    )


def _code(text: str) -> str:
    """Text from elsewhere as inline code that cannot break out of it or of a table."""
    kept = "".join(c if c.isprintable() and c not in "`|" else "_" for c in text)
    return f"`{kept[:200]}`" if kept else ""


def _size(count: int) -> str:
    """Bytes in the largest decimal unit that leaves at least 1 of it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
