"""Answers in OpenAI's shapes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from randes_cli.server.edition import Served
from randes_cli.server.sampling import Choice


@dataclass(slots=True)
class Shape:
    """The shape of /v1/completions; `Chat` is the other one.

    Attributes:
        fingerprint: of the state of the bank that answers.
    """

    served: Served
    fingerprint: str
    id: str = field(init=False)
    created: int = field(init=False)

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __post_init__(self) -> None:
        self.id, self.created = self.prefix + secrets.token_hex(12), int(time.time())

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.fingerprint,
        }

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """An answer that comes in one."""
        return {**self._head(self.whole_object), "choices": list(choices), "usage": usage}

    def chunk(
        self, choices: Sequence[dict[str, Any]], usage: dict[str, Any] | None, *, counted: bool
    ) -> dict[str, Any]:
        """A piece of one that streams; `counted` streams say ``usage`` in every piece."""
        made = {**self._head(self.chunk_object), "choices": list(choices)}
        return {**made, "usage": usage} if counted else made

    def opening(self, number: int) -> dict[str, Any] | None:
        return None

    def choice(
        self,
        number: int,
        text: str,
        tokens: Sequence[Choice] | None,
        reason: str | None,
        offset: int | None = None,
    ) -> dict[str, Any]:
        """One answer whole, or a piece of one, at an offset in its text."""
        logprobs = None if tokens is None else self._logprobs(tokens, offset or 0)
        return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Choice], offset: int) -> dict[str, Any]:
        name = self.served.words.name
        names = [name(choice.token) for choice in tokens]
        offsets = []
        for text in names:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": names,
            "token_logprobs": [choice.logprob for choice in tokens],
            "top_logprobs": [
                {name(token): value for token, value in choice.likeliest} for choice in tokens
            ],
            "text_offset": offsets,
        }


class Chat(Shape):
    """The shape of /v1/chat/completions."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def choice(
        self,
        number: int,
        text: str,
        tokens: Sequence[Choice] | None,
        reason: str | None,
        offset: int | None = None,
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"content": text} if reason is None else {}}
        if offset is None:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        logprobs = self._content(tokens)
        return {"index": number, **said, "logprobs": logprobs, "finish_reason": reason}

    def opening(self, number: int) -> dict[str, Any] | None:
        """Whose turn it is."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def _content(self, tokens: Sequence[Choice] | None) -> dict[str, Any] | None:
        if tokens is None:
            return None
        return {
            "content": [
                {
                    **self._told(choice.token, choice.logprob),
                    "top_logprobs": [self._told(*pair) for pair in choice.likeliest],
                }
                for choice in tokens
            ],
            "refusal": None,
        }

    def _told(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self.served.words.name(token)
        broken = "\ufffd" in text  # a part of a character: its bytes are not known here
        data = None if broken else list(text.encode("utf-8", "replace"))
        return {"token": text, "logprob": logprob, "bytes": data}


def usage(prompt: int, answer: int | None = None) -> dict[str, Any]:
    """How many tokens went in, and came out."""
    made = {"prompt_tokens": prompt, "total_tokens": prompt + (answer or 0)}
    return made if answer is None else {**made, "completion_tokens": answer}
