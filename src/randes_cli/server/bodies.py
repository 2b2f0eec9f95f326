"""The bodies of requests, field by field as OpenAI's interface has them.

A field that would change the answer and is not carried out is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

#: Most prompts, texts or answers of one request.
MOST_INPUTS = 2048
MOST_ANSWERS = 128
#: A token's number has fewer.
_DIGITS = 20

Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Token = Annotated[int, Field(ge=0)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Text = Annotated[str, Field(max_length=10_000_000)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=MOST_INPUTS)]


class Strict(BaseModel):
    """An object with these fields alone, and of these very types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Body(Strict):
    """What all requests have; `user` and the like are taken and not used."""

    model: Annotated[str, Field(min_length=1)]
    user: str | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None


class StreamOptions(Strict):
    """What a stream tells beside its text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Continuing(Body):
    """What requests for text have in common."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    stop: Annotated[str, Field(min_length=1)] | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (len(value) > 4 or not all(value)):
            raise ValueError("at most four stops, none of them empty")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _tokens(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        known = (k.isascii() and k.isdigit() and len(k) < _DIGITS for k in value or ())
        if not all(known):
            raise ValueError("its keys are numbers of tokens")
        return value

    @model_validator(mode="before")
    @classmethod
    def _carried_out(cls, body: Any) -> Any:
        """Refuse what would change the answer; take it where it asks for what is done anyway."""
        return _without(body, _NOT_CARRIED_OUT)

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


def _without(body: Any, idle: Mapping[str, tuple[Any, ...]]) -> Any:
    """A body without fields that ask for nothing. Raises where one asks for something."""
    if not isinstance(body, Mapping):
        return body
    for name in idle.keys() & body.keys():
        if body[name] is not None and body[name] not in idle[name]:
            raise PydanticCustomError(
                "not_carried_out", "is not carried out by this server", {"field": name}
            )
    return {name: value for name, value in body.items() if name not in idle}


#: Fields that this server does not carry out, with the values that ask for nothing.
_NOT_CARRIED_OUT: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}


#: What an answer's message has beside its text, where clients send it back with the next turn.
_IDLE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
}


class Part(Strict):
    """A part of a message; there are none but texts."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None
    refusal: None = None

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, message: Any) -> Any:
        return _without(message, _IDLE)

    def plain(self) -> dict[str, str]:
        """As templates take it: its text in one."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": self.role, "content": text, **({"name": self.name} if self.name else {})}


class ChatBody(Continuing):
    """Of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _logprobs_first(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("needs_logprobs", "needs logprobs", {"field": "top_logprobs"})
        return self

    @property
    def most(self) -> int | None:
        """How many tokens an answer may have."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def told(self) -> int | None:
        """How many of the likeliest tokens to tell of."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Continuing):
    """Of /v1/completions."""

    prompt: Text | Texts | Tokens | TokenLists
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def most(self) -> int:
        """How many tokens an answer may have: few, unless more are asked for."""
        return self.max_tokens or 16

    @property
    def told(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        return inputs(self.prompt)


class EmbeddingBody(Body):
    """Of /v1/embeddings; `truncate` cuts texts that are too long, in place of refusing them."""

    input: Text | Texts | Tokens | TokenLists
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    truncate: bool = False

    @field_validator("dimensions", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("vectors come whole: these models were not trained to be cut")


class Pair(Strict):
    """Two texts that are judged together."""

    text: Text
    text_pair: Text | None = None


class ClassifyBody(Body):
    """Of /v1/classify."""

    input: (
        Text
        | Pair
        | Annotated[list[Text | Pair], Field(min_length=1, max_length=MOST_INPUTS)]
        | Tokens
        | TokenLists
    )
    truncate: bool = False


def inputs(given: Any) -> list[Any]:
    if not isinstance(given, list):
        return [given]
    return [given] if isinstance(given[0], int) else list(given)
