"""The model card of a bank: what the Hub reads, its licence, and commands that work as printed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randes_cli.core.prediction.verdict import WHY, approximate, kept, percent, sentences
from randes_cli.errors import RandesError, counted
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import file_key
from randes_cli.files.hub.errors import hub_errors
from randes_cli.files.hub.ref import recorded_ref
from randes_cli.ops.describe import BankReport, TaskDetail
from randes_cli.reports import TaskSummary

if TYPE_CHECKING:
    from huggingface_hub import HfApi


#: What a card is called.
CARD = "README.md"
#: In every card that `push` wrote; a card without it is somebody's own and stays.
MARKER = (
    "<!-- made by randes push; without this line the card is yours and will not be replaced -->"
)
_HEADS = ("task", "predicted cosine", "λ", "keeps", "gain kept", "measured")
_MORE = ("superposed", "exact", "unchanged", "from")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bank lies on the Hub.

    Attributes:
        shards: whether the file is an index with shards beside it.
    """

    repo: str
    file: str
    revision: str | None = None
    shards: bool = False

    @property
    def id(self) -> str:
        """As `randes` takes it."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{at}:{self.file}"

    @property
    def opened(self) -> str:
        """What opens it in Python."""
        if self.shards:
            return f'"{self.id}"'
        more = f', revision="{self.revision}"' if self.revision else ""
        return f'hf_hub_download("{self.repo}", "{self.file}"{more})'


def model_card(
    report: BankReport,
    *,
    repo: str,
    file: str,
    license: str | None = None,
    revision: str | None = None,
    shards: bool = False,
) -> str:
    """The text of a card: YAML front matter, then what the bank holds and how to get it out."""
    place = Place(repo, file, revision, shards)
    count = counted(len(report.tasks), "model")
    live = f", {report.bits} bits" if len(report.sealed) < report.groups else ""
    return f"""---
{_front_matter(report, license)}---
{MARKER}

# {repo.split("/")[1]}

{_code(file)} holds {count} fine-tuned from one base in {_size(report.bank_bytes)}; as separate
checkpoints they take {_size(report.separate_bytes)}. It is a *bank*: the base and one superposition
of all the models' changes to it, from which `randes` gives any of them back.

{_expected(report)}

{_table(report)}

- base: {_code(report.base_name)}, {_size(report.base_bytes)}, {report.base_tensors} tensors
- transform: {_code(report.transform)} (shuffle {report.shuffle}, signs {report.signs}), targets \
{_code(report.targets)}{live}, seed {report.seed}
{_outside(report)}
{_use(place, report.tasks)}
## What to expect

Retrieval is approximate: superposed tensors come back as the fine-tuned ones plus what is left of
the other tasks. The predicted cosine compares a retrieved change of the weights with the true one
(1 is exact). *Keeps* is the share of its accuracy that models kept which were measured at such a
cosine ({WHY}); *gain kept* is predicted, of what fine-tuning gained over the base; *measured* is
the score that `randes tune` found, where it ran. Exact and unchanged tensors come back bit for bit.
Evaluate a retrieved model on its own task before you rely on it.
"""


def _front_matter(report: BankReport, licence: str | None) -> str:
    """What the Hub reads of a card, in its own client's spelling."""
    from huggingface_hub import ModelCardData

    base = recorded_ref(report.base_source)
    more: dict[str, Any] = {"license": licence} if licence else {}
    if base is not None:
        adapters = report.base_storage == "zero"
        more |= {
            "base_model": base.repo,
            "base_model_relation": "adapter" if adapters else "finetune",
        }
    tags = ["randes", "model-compression", "multi-task"]
    data = ModelCardData(library_name="randes", tags=tags, **more)
    return data.to_yaml() + "\n"


def _expected(report: BankReport) -> str:
    """What to expect, in the words of every other place."""
    told = [*sentences(report.tasks), *approximate(report.tasks)]
    return "\n".join(f"- {sentence}" for sentence in told) or "No tasks."


def _table(report: BankReport) -> str:
    """A row for every task; what was measured has a column where anything was."""
    heads = [*_HEADS, *_MORE]
    rows = [_cells(task, detail) for task, detail in zip(report.tasks, report.details, strict=True)]
    unused = {n for n in (4, 5) if all(row[n] == "" for row in rows)}
    lines = [heads, ["---", *["---:"] * (len(heads) - 2), "---"], *rows]
    return "\n".join(
        f"| {' | '.join(cell for n, cell in enumerate(line) if n not in unused)} |"
        for line in lines
    )


def _cells(task: TaskSummary, detail: TaskDetail) -> list[str]:
    scores = dict(detail.tuning)
    score = scores.get(task.coefficient)
    return [
        task.name,
        f"{task.predicted_cosine:.3f}",
        f"{task.coefficient:g}",
        kept(task),
        "" if task.kept is None else percent(task.kept),
        "" if score is None else f"{score:.4g}",
        *(str(number) for number in (task.superposed, task.own, task.unchanged)),
        _code(detail.source),
    ]


def _outside(report: BankReport) -> str:
    if report.base_storage != "reference":
        return ""
    return (
        "\nThe base is **not** in the file: to unpack, have it at hand "
        f"({_code(report.base_name)}, or say `--base PATH`).\n"
    )


def _use(place: Place, tasks: Sequence[TaskSummary]) -> str:
    """Commands and lines of Python, each of which works as it stands."""
    task = tasks[0].name if tasks else "TASK"
    out = task if tasks and tasks[0].side_files else f"{task}.safetensors"
    download = "" if place.shards else "from huggingface_hub import hf_hub_download\n"
    return f"""## Unpacking

```sh
pip install randes-cli
randes unpack {place.id} --task {task} -o {out}
randes unpack {place.id} --all -o models
randes inspect {place.id}
```

```python
{download}from randes_cli import Bank

with Bank.open({place.opened}) as bank:
    state_dict = bank.retrieve("{task}")
```

## One task after another, in place

```python
{download}from randes_cli import Pool

with Pool({place.opened}, model) as pool:  # model: any of the base's architecture
    with pool.use("{task}") as current:
        answer = current(**batch)
```
"""


def _code(text: str) -> str:
    """Text from elsewhere as inline code that cannot break out of it or of a table."""
    shown = "".join(c if c.isprintable() and c not in "`|" else "_" for c in text)
    return f"`{shown[:200]}`" if shown else ""


def _size(count: int) -> str:
    """Bytes in the largest decimal unit that leaves at least 1 of it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= 0.99995 * size:  # 999,960 bytes are 1.0 MB, not 1000.0 kB
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


#: Bytes of the longest card that is read for its licence.
_MOST = 2**20
#: Characters that a card's front matter may have: YAML of millions may take minutes.
_FRONT = 2**16


def licence_of(bank: BankFile, api: HfApi) -> str | None:
    """The one licence that the cards in a bank name; the base's on the Hub where they name none.

    None where they name several, or nobody says.
    """
    found = _named_in(bank)
    if len(found) == 1:
        return min(found)
    base = recorded_ref(bank.manifest.base.source)
    if found or base is None:
        return None
    with suppress(RandesError, ValueError, TypeError), hub_errors(base.repo, base.repo):
        card = api.model_info(base.repo).card_data
        return _one(None if card is None else card.get("license"))
    return None


def _named_in(bank: BankFile) -> set[str]:
    """The licences that models' cards name which travel in the bank."""
    files = [record.files for record in bank.manifest.tasks] + [bank.manifest.base.files]
    digests = {
        digest
        for named in files
        for name, digest in named.items()
        if name.rpartition("/")[2] == CARD
    }
    made = set()
    for key in map(file_key, sorted(digests)):
        if key in bank and bank.info(key).nbytes <= _MOST:
            text = bytes(bank.read_whole(key)).decode("utf-8", "replace")
            made.add(_in_card(text))
    return {licence for licence in made if licence}


def _in_card(text: str) -> str | None:
    """The licence in a card's front matter."""
    from huggingface_hub import ModelCard

    try:
        return _one(ModelCard(text[:_FRONT], ignore_metadata_errors=True).data.get("license"))
    except Exception:  # somebody's YAML: what cannot be read names no licence
        return None


def _one(value: object) -> str | None:
    """A licence's id, as the Hub has them."""
    if isinstance(value, str) and len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    return None
