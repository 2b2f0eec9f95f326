"""Which token follows: for each row of a batch by its own request's wishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asks of the choice of tokens.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: the smallest set of tokens with this probability is drawn from.
        top_k: at most so many are drawn from (0: any number).
        presence: taken from a logit for a token that the answer has.
        frequency: taken for each time that it has it.
        bias: added to logits, by token.
        logprobs: how many of the likeliest tokens to tell of; None tells of none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence: float = 0.0
    frequency: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the most likely token is taken, and nothing is told of it."""
        return not (self.temperature or self.changes or self.logprobs is not None)

    @property
    def changes(self) -> bool:
        """Whether logits are changed first."""
        return bool(self.presence or self.frequency or self.bias)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token, with log probabilities where they were asked for."""

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Chooser:
    """One answer's choices: its wishes, its randomness, and what it has said."""

    sampling: Sampling
    seed: int
    said: Counter[int] = field(default_factory=Counter)
    random: torch.Generator | None = None

    def choose(self, logits: torch.Tensor) -> Choice:
        """A token by logits [vocabulary] in float32, none of which is NaN."""
        wishes = self.sampling
        changed = self._changed(logits) if wishes.changes else logits
        token = int(changed.argmax()) if not wishes.temperature else self._drawn(changed)
        if wishes.changes:
            self.said[token] += 1
        if wishes.logprobs is None:
            return Choice(token)
        logs = logits.log_softmax(-1)
        top = logs.topk(min(wishes.logprobs, len(logs)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Choice(token, float(logs[token]), tuple(pairs))

    def _changed(self, logits: torch.Tensor) -> torch.Tensor:
        made, wishes = logits.clone(), self.sampling
        for token, times in self.said.items():
            made[token] -= wishes.presence + wishes.frequency * times
        for token, bias in wishes.bias.items():
            if token < len(made):
                made[token] += bias
        return made

    def _drawn(self, logits: torch.Tensor) -> int:
        """One of the tokens that top_k and top_p leave; ties in order of their numbers."""
        wishes = self.sampling
        values, tokens = logits.cpu().sort(descending=True, stable=True)
        values = ((values - values[0]).double() / wishes.temperature).softmax(-1)
        keep = wishes.top_k or len(values)
        if wishes.top_p < 1:
            before = values.cumsum(-1) - values
            keep = min(keep, max(1, int((before < wishes.top_p).sum())))
        if self.random is None:
            self.random = torch.Generator().manual_seed(self.seed)
        place = torch.multinomial(values[:keep], 1, generator=self.random)
        return int(tokens[place])


def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[Choice | ValueError]:
    """A choice for each row of logits [rows, vocabulary]; an error where there is none."""
    likeliest = logits.argmax(-1).tolist()
    broken = logits.isnan().any(-1).tolist()
    made: list[Choice | ValueError] = []
    for row, chooser in enumerate(choosers):
        if broken[row]:
            made.append(ValueError("the model's logits are NaN"))
        elif chooser.sampling.plain:
            made.append(Choice(likeliest[row]))
        else:
            made.append(chooser.choose(logits[row]))
    return made
