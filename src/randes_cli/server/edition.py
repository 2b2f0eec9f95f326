"""One state of a bank, opened and attached: what requests begin with, and end with."""

from __future__ import annotations

import copy
import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.bank.keys import MANIFEST
from randes_cli.files.location import Place
from randes_cli.files.side_files import content_digest
from randes_cli.live.matching.inside import PartsWarning
from randes_cli.live.mixed import attach
from randes_cli.live.opening import transformers as live
from randes_cli.ops.describe import describe
from randes_cli.reports import TaskSummary
from randes_cli.server.encoding import Encoding
from randes_cli.server.errors import Refused
from randes_cli.server.generating import Generating, Sizes
from randes_cli.server.kinds import Kind, Nature, context_of, ends_of, nature_of, small_files
from randes_cli.server.readers import Reader, readers_of
from randes_cli.server.words import Tokenizers, Words

log = logging.getLogger("randes.serve")
#: What the base is called, unless a task has that name.
BASE = "base"


@dataclass(frozen=True, slots=True)
class Opening:
    """What to open, and how models are held.

    Attributes:
        bank: a path, or a bank on the Hub.
        tasks: those to serve (None: all).
        dtype: of the model, as torch calls it (None: the base's).
        hold: ``dense`` or ``codes``, as `attach` takes it.
    """

    bank: str
    base: str | None = None
    tasks: tuple[str, ...] | None = None
    device: str = "cpu"
    dtype: str | None = None
    hold: str = "dense"
    coefficient: float | None = None
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True, slots=True)
class Served:
    """A task as a client sees it: a model with a name.

    Attributes:
        task: of the bank; None is the base.
        context: most tokens of a prompt and its answer.
        vocabulary: how many tokens it knows.
        expected: what is predicted of it; None for the base.
        reader: what makes its result, of encoders.
    """

    name: str
    task: str | None
    kind: Kind
    words: Words
    lane: Generating | Encoding
    context: int
    vocabulary: int
    ends: frozenset[int]
    expected: TaskSummary | None
    reader: Reader


@dataclass(frozen=True, slots=True)
class Edition:
    """Everything that one state of a bank answers with.

    Attributes:
        models: by the name that clients use.
        unserved: the tasks that nothing here can serve, each with the reason.
        fingerprint: of the bank's manifest.
        skeletons: models as built, without tasks, by the base's content and what they compute.
    """

    models: Mapping[str, Served]
    lanes: tuple[Generating | Encoding, ...]
    unserved: Mapping[str, str]
    created: int
    fingerprint: str
    skeletons: Mapping[tuple[str, str], Any]

    def find(self, name: str) -> Served:
        """A model by its name; a name is never a path. Raises Refused with the nearest."""
        found = self.models.get(name)
        if found is not None:
            return found
        if name in self.unserved:
            raise Refused(404, f"{name}: {self.unserved[name]}", param="model", code="not_served")
        near = difflib.get_close_matches(name[:100], list(self.models), 1, 0)
        raise Refused(
            404,
            f"no model {name[:100]!r} (did you mean {near[0]}?)",
            param="model",
            code="model_not_found",
        )

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the models, and of what all tasks take beside them."""
        made = {"model": 0, "tasks": 0}
        for lane in self.lanes:
            for name, size in lane.mixed.memory.items():
                made[name] += size
        return made


def open_edition(opening: Opening, before: Edition | None = None) -> Edition:
    """Open a bank and attach its tasks. What `before` has of the same base is used again.

    Raises MissingError for unknown tasks and where none can be served.
    """
    _check(opening)
    with Bank.open(opening.bank, base=opening.base) as bank:
        return _Maker(bank, opening, before).make()


def _check(opening: Opening) -> None:
    """Raise UsageError for words that torch does not know, before anything is read."""
    if not isinstance(getattr(torch, opening.dtype or "float32", None), torch.dtype):
        raise UsageError(f"--dtype {opening.dtype!r} is no dtype of torch: say bfloat16, float32 …")
    try:
        torch.empty(0, device=opening.device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"--device {opening.device!r}: {why}") from None
    if opening.hold not in ("dense", "codes"):
        raise UsageError(f"--hold is 'dense' or 'codes', not {opening.hold!r}")


class _Maker:
    """Makes an edition of an open bank."""

    def __init__(self, bank: Bank, opening: Opening, before: Edition | None) -> None:
        self.bank, self.opening = bank, opening
        self.tokenizers = Tokenizers(bank)
        self.old = before.skeletons if before else {}
        self.skeletons: dict[tuple[str, str], Any] = {}
        self.models: dict[str, Served] = {}
        self.lanes: list[Generating | Encoding] = []
        self.unserved: dict[str, str] = {}
        tasks = bank.file.manifest.tasks
        summaries = describe(bank.file).tasks if tasks else ()
        self.expected = {one.name: one for one in summaries}

    def make(self) -> Edition:
        """Group the tasks by what one model can answer, and attach each group."""
        groups: dict[str, list[tuple[str | None, Nature]]] = {}
        for task in self._chosen():
            nature = nature_of(self.bank, task)
            if nature.kind is None:
                self.unserved[task] = nature.why
                continue
            groups.setdefault(nature.key, []).append((task, nature))
        if not groups:
            why = next(iter(self.unserved.values()), "it has no tasks")
            raise MissingError(f"{self.bank.file.path}: nothing to serve: {why}")
        self._add_base(groups)
        for members in groups.values():
            self._attach(members)
        return Edition(
            self.models,
            tuple(self.lanes),
            self.unserved,
            _changed(self.bank.file.path),
            "fp_" + content_digest(self.bank.file.read_whole(MANIFEST).tobytes())[:16],
            self.skeletons,
        )

    def _chosen(self) -> Sequence[str]:
        for task in self.opening.tasks or ():
            self.bank.task(task)
        return self.opening.tasks or self.bank.tasks

    def _add_base(self, groups: Mapping[str, list[tuple[str | None, Nature]]]) -> None:
        """The base, where one of the groups' models is its own."""
        try:
            nature = nature_of(self.bank, None)
        except MissingError:
            return
        if nature.key in groups and BASE not in self.bank.tasks:
            groups[nature.key].insert(0, (None, nature))

    def _attach(self, members: Sequence[tuple[str | None, Nature]]) -> None:
        first, nature = members[0]
        key = (self.bank.file.manifest.base.fingerprint, nature.key)
        self.skeletons[key] = self.old[key] if key in self.old else self._build(first, nature)
        model = twin(self.skeletons[key])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", PartsWarning)  # readers have these of each task
            mixed = attach(
                model,
                self.bank,
                tasks=[task for task, _ in members if task is not None],
                component=nature.home if nature.sentence else None,
                hold=self.opening.hold,
                coefficient=self.opening.coefficient,
            )
        for warning in told:
            log.warning("%s", warning.message)
        for lacks, parameter in mixed.lacking:
            log.warning("%s was saved without %s: the base's values answer", lacks, parameter)
        generates = nature.kind is Kind.generate
        lane = (Generating if generates else Encoding)(mixed, self.opening.sizes)
        self.lanes.append(lane)
        readers = {} if generates else readers_of(self.bank, members, self.opening.device)
        for task, own in members:
            self._serve(task, own, lane, readers.get(task))

    def _build(self, task: str | None, nature: Nature) -> Any:
        device, dtype = self.opening.device, self.opening.dtype
        options = {"dtype": getattr(torch, dtype)} if dtype else {}
        with small_files(self.bank, task):
            if nature.sentence:
                from randes_cli.live.opening import sentence_transformers as sentences

                found = sentences.from_bank(self.bank, task, device=device, model_kwargs=options)
                made = found[0].auto_model
            else:
                made = live.from_bank(self.bank, task, **options).to(device)
            return made.eval().requires_grad_(False)

    def _serve(
        self, task: str | None, nature: Nature, lane: Generating | Encoding, reader: Reader | None
    ) -> None:
        owner = task if reader is not None else self._with_tokenizer(task)
        files = self.bank.retrieval(owner).task.files
        words = self.tokenizers.words(files, partial(self._tokenizer, owner, reader))
        context = context_of(nature.config, lane.mixed.model)
        limits = [self.opening.sizes.cells, context, words.length, reader and reader.longest]
        assert nature.kind is not None
        name = BASE if task is None else task
        self.models[name] = Served(
            name=name,
            task=task,
            kind=nature.kind,
            words=words,
            lane=lane,
            context=min(limit for limit in limits if limit),
            vocabulary=int(nature.config.get_text_config().vocab_size),
            ends=ends_of(nature, words.tokenizer),
            expected=None if task is None else self.expected[task],
            reader=reader or Reader(),
        )

    def _with_tokenizer(self, task: str | None) -> str | None:
        """Whose tokenizer a task takes: the base's where it was saved without one."""
        files, base = (self.bank.retrieval(one).task.files for one in (task, None))
        if live.has_processor(files) or not live.has_processor(base):
            return task
        log.warning("%s was saved without a tokenizer: the base's reads and writes for it", task)
        return None

    def _tokenizer(self, task: str | None, reader: Reader | None) -> Any:
        if reader is not None and reader.tokenizer is not None:
            return reader.tokenizer
        with small_files(self.bank, task):
            return live.processor_from_bank(self.bank, task)


def _changed(path: Place) -> int:
    """When a bank was written, in seconds; 0 for one that is not here."""
    return int(path.stat().st_mtime) if isinstance(path, Path) and path.exists() else 0


def twin(model: Any) -> Any:
    """Another object of modules with the very same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
