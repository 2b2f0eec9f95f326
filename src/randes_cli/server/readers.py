"""What makes a result of an encoder's outputs: poolings of embeddings, labels of classifiers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from randes_cli.api import Bank
from randes_cli.server.kinds import Kind, Nature, small_files


@dataclass(frozen=True, slots=True)
class Reader:
    """How one task's outputs are read.

    Attributes:
        labels: of a classifier, in order.
        several: whether more than one label may be true.
        modules: of an encoder: what sentence-transformers runs behind the network.
        prompt: what it puts before every text.
        skipped: tokens of the prompt, where poolings leave these out.
        size: how many numbers of a vector are told; None: all.
        longest: most tokens of a text, or None.
        tokenizer: its own, where the bank's lies elsewhere than usual.
    """

    labels: tuple[str, ...] = ()
    several: bool = False
    modules: tuple[Any, ...] = ()
    prompt: str = ""
    skipped: int = 0
    size: int | None = None
    longest: int | None = None
    tokenizer: Any = field(default=None, repr=False)

    def read(self, outputs: Any, mask: torch.Tensor, skipped: int) -> list[list[float]]:
        """A vector for each row: an embedding, or the scores of the labels."""
        if self.labels:
            return self._scores(outputs.logits[:, : len(self.labels)].float())
        features: dict[str, Any] = {
            "token_embeddings": outputs.last_hidden_state,
            "attention_mask": mask,
            "prompt_length": skipped,
        }
        if not self.modules:
            return mean(features).tolist()
        for module in self.modules:
            features = module(features)
        found: list[list[float]] = features["sentence_embedding"][:, : self.size].float().tolist()
        return found

    def _scores(self, logits: torch.Tensor) -> list[list[float]]:
        if len(self.labels) > 1:
            logits = logits.sigmoid() if self.several else logits.softmax(-1)
        found: list[list[float]] = logits.tolist()
        return found


def mean(features: Mapping[str, Any]) -> torch.Tensor:
    """The mean over a text's tokens, as sentence-transformers pools where nothing else is said."""
    mask = features["attention_mask"].unsqueeze(-1).float()
    found: torch.Tensor = (features["token_embeddings"].float() * mask).sum(1) / mask.sum(1)
    return found


def readers_of(
    bank: Bank, members: Sequence[tuple[str | None, Nature]], device: str
) -> dict[str | None, Reader]:
    """A reader for each task. Those of sentence-transformers that are equal are loaded once."""
    made: dict[str | None, Reader] = {}
    loaded: dict[str, Reader] = {}
    for task, nature in members:
        if nature.kind is Kind.classify:
            made[task] = _classifier(nature.config)
        elif nature.sentence:
            key = _key(bank, task)
            if key not in loaded:
                loaded[key] = _sentence(bank, task, device)
            made[task] = loaded[key]
        else:
            made[task] = Reader()
    return made


def _classifier(config: Any) -> Reader:
    labels = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    return Reader(labels, config.problem_type == "multi_label_classification")


def _key(bank: Bank, task: str | None) -> str:
    """What decides of the modules behind the network; weights of its own make a task its own."""
    record = bank.retrieval(task).task
    if len(record.layout) > 1:
        return json.dumps(task)
    return json.dumps(sorted(record.files.items()))


def _sentence(bank: Bank, task: str | None, device: str) -> Reader:
    from randes_cli.live.opening import sentence_transformers as sentences

    with small_files(bank, task):
        model = sentences.from_bank(bank, task, device=device).eval()
    prompt = model.prompts.get(model.default_prompt_name, "") if model.default_prompt_name else ""
    behind = tuple(model)[1:]
    apart = any(not getattr(module, "include_prompt", True) for module in behind)
    return Reader(
        modules=behind,
        prompt=prompt,
        skipped=_length(prompt, model.tokenizer) if apart and prompt else 0,
        size=model.truncate_dim,
        longest=model.max_seq_length,
        tokenizer=model.tokenizer,
    )


def _length(prompt: str, tokenizer: Any) -> int:
    """Tokens of a prompt, but for one that the tokenizer puts behind a text."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - bool(ids and ids[-1] in tokenizer.all_special_ids)
