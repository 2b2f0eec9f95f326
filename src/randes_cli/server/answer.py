"""One answer under way, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from randes_cli.server.readers import Reader
from randes_cli.server.sampling import Choice, Chooser
from randes_cli.server.texts import TextReader


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that came, and the tokens since the last piece where they were asked for."""

    text: str
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """An answer's end: why (``stop`` or ``length``), and how many tokens it has."""

    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """What an encoder made of one text: a vector, or the scores of its labels."""

    values: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """An answer that ends in an error; `message` says nothing of prompts."""

    message: str


Event = Piece | Done | Result | Failed


@dataclass(slots=True, eq=False)
class Job:
    """Something that waits for its turn in a batch.

    Attributes:
        task: of the bank, None for the base.
        ids: tokens so far; `prompt` of them were given.
        tell: takes events, in the engine's thread.
        gone: whether nobody waits for it any more.
    """

    task: str | None
    ids: list[int]
    tell: Callable[[Event], None]
    prompt: int = field(init=False)
    gone: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.prompt = len(self.ids)


@dataclass(slots=True, eq=False)
class Answer(Job):
    """Tokens to come.

    Attributes:
        most: how many may come.
        ends: tokens that end it.
    """

    most: int = 0
    ends: frozenset[int] = frozenset()
    chooser: Chooser = field(kw_only=True)
    reader: TextReader = field(kw_only=True)

    @property
    def tokens(self) -> int:
        """How many came."""
        return len(self.ids) - self.prompt

    def take(self, choice: Choice) -> bool:
        """Take a token and tell of it; whether that was the last."""
        self.ids.append(choice.token)
        ended = choice.token in self.ends
        text = "" if ended else self.reader.push(choice.token)
        ended = ended or self.reader.stopped
        last = ended or self.tokens >= self.most
        if last:
            text += self.reader.finish()
            ended = ended or self.reader.stopped
        asked = self.chooser.sampling.logprobs is not None
        if text or asked:
            self.tell(Piece(text, (choice,) if asked else ()))
        if last:
            self.tell(Done("stop" if ended else "length", self.tokens))
        return last


@dataclass(slots=True, eq=False)
class Reading(Job):
    """A text for an encoder to read.

    Attributes:
        segments: token types, where the model has such.
        skipped: tokens of a prompt at its beginning that poolings leave out.
        reader: makes a result of the model's outputs for this row.
    """

    reader: Reader = field(kw_only=True)
    segments: Sequence[int] | None = None
    skipped: int = 0
