"""Answers of encoders: embeddings in OpenAI's shape, classes in the one that vLLM has."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from randes_cli.server.answer import Failed, Result
from randes_cli.server.asking import Asking, add_reading
from randes_cli.server.bodies import ClassifyBody, EmbeddingBody, Pair, inputs
from randes_cli.server.edition import Served
from randes_cli.server.engine import Engine
from randes_cli.server.errors import Refused
from randes_cli.server.metrics import Metrics
from randes_cli.server.shapes import usage
from randes_cli.server.streams import until_hung_up


async def embeddings(
    engine: Engine, served: Served, body: EmbeddingBody, request: Request, metrics: Metrics
) -> Response:
    """A vector for each input, in their order."""

    def shape(vectors: list[Any]) -> dict[str, Any]:
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, body)}
            for number, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": served.name}

    return await _answer(Asking(engine, served), body, request, metrics, shape)


def _encoded(vector: list[float], body: EmbeddingBody) -> list[float] | str:
    """As numbers, or as the bytes of float32, least significant first, in base64."""
    if body.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def classes(
    engine: Engine, served: Served, body: ClassifyBody, request: Request, metrics: Metrics
) -> Response:
    """The likeliest label of each input, and the scores of all."""

    def shape(found: list[Any]) -> dict[str, Any]:
        labels = served.reader.labels
        data = [
            {
                "index": number,
                "label": labels[max(range(len(probs)), key=probs.__getitem__)],
                "probs": probs,
                "num_classes": len(probs),
            }
            for number, probs in enumerate(found)
        ]
        return {"object": "list", "model": served.name, "labels": list(labels), "data": data}

    return await _answer(Asking(engine, served), body, request, metrics, shape)


async def _answer(
    asking: Asking,
    body: EmbeddingBody | ClassifyBody,
    request: Request,
    metrics: Metrics,
    shape: Callable[[list[Any]], dict[str, Any]],
) -> Response:
    """What the encoder makes of each input, in this shape; nothing where the client went."""
    for one in inputs(body.input):
        ids, segments = await asyncio.to_thread(_tokens, asking.served, one, body.truncate)
        prompted = not isinstance(one, list)
        add_reading(asking, ids, segments, truncate=body.truncate, prompted=prompted)
    try:
        asking.submit()
        found = await until_hung_up(_collected(asking), request)
    finally:
        asking.cancel()
    if found is None:
        return Response(status_code=499)
    metrics.tokens(asking.served.name, asking.prompt_tokens, 0)
    made = shape([found[number] for number in range(len(asking.jobs))])
    return JSONResponse({**made, "usage": usage(asking.prompt_tokens)})


def _tokens(served: Served, given: Any, truncate: bool) -> tuple[list[int], list[int] | None]:
    if isinstance(given, list):
        return given[: served.context] if truncate else given, None
    text, pair = (given.text, given.text_pair) if isinstance(given, Pair) else (given, None)
    longest = served.context if truncate else None
    return served.words.encode_for(served.reader.prompt + text, pair, longest=longest)


async def _collected(asking: Asking) -> dict[int, Any]:
    made = {}
    async for number, event in asking.events():
        if isinstance(event, Failed):
            raise Refused(500, event.message)
        if isinstance(event, Result):
            made[number] = event.values
    return made
