"""How answers reach a client: whole, or as server-sent events while they come."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from randes_cli.server.answer import Done, Failed, Piece
from randes_cli.server.asking import Asking, hung_up
from randes_cli.server.errors import Refused, error_body, trace
from randes_cli.server.metrics import Metrics
from randes_cli.server.sampling import Choice
from randes_cli.server.shapes import Shape, usage

log = logging.getLogger("randes.serve")


@dataclass(slots=True)
class _Whole:
    """One answer as far as it came."""

    text: str = ""
    choices: list[Choice] = field(default_factory=list)
    reason: str = ""
    tokens: int = 0


async def whole_answer(
    asking: Asking, request: Request, shape: Shape, metrics: Metrics, *, logprobs: bool
) -> Response:
    """All answers in one body. Raises Refused where one failed."""
    found = await until_hung_up(_collected(asking), request)
    if found is None:
        return Response(status_code=499)
    choices = [
        shape.choice(n, one.text, one.choices if logprobs else None, one.reason)
        for n, one in sorted(found.items())
    ]
    tokens = sum(one.tokens for one in found.values())
    metrics.tokens(asking.served.name, asking.prompt_tokens, tokens)
    return JSONResponse(shape.whole(choices, usage(asking.prompt_tokens, tokens)))


async def until_hung_up(work: Any, request: Request) -> Any:
    """What work gives; None, and the work is cancelled, where the client went first."""
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
        return await done if done.done() else None
    finally:
        done.cancel()
        gone.cancel()


async def _collected(asking: Asking) -> dict[int, _Whole]:
    made: dict[int, _Whole] = defaultdict(_Whole)
    async for number, event in asking.events():
        one = made[number]
        if isinstance(event, Piece):
            one.text += event.text
            one.choices += event.choices
        elif isinstance(event, Done):
            one.reason, one.tokens = event.reason, event.tokens
        elif isinstance(event, Failed):
            raise Refused(500, event.message)
    return made


def _event(data: dict[str, Any] | str) -> dict[str, Any]:
    """A server-sent event, as a message of ASGI."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    body = f"data: {text}\n\n".encode("utf-8", "replace")
    return {"type": "http.response.body", "body": body, "more_body": True}


class EventStream(Response):
    """Answers as server-sent events. However it ends, the places of its jobs are free again."""

    media_type = "text/event-stream"

    def __init__(
        self,
        asking: Asking,
        shape: Shape,
        metrics: Metrics,
        *,
        logprobs: bool,
        counted: bool,
    ) -> None:
        self._asking, self._shape, self._metrics = asking, shape, metrics
        self._logprobs, self._counted = logprobs, counted
        self._offsets: dict[int, int] = defaultdict(int)
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until all answers ended, or the client has gone."""
        try:
            sending = self._send(send)
            await until_hung_up(sending, Request(scope, receive))
        finally:
            self._asking.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for data in self._events():
                await send(_event(data))
        except Exception as error:
            log.error("a stream failed: %s", trace(error))
            message = f"the server failed ({type(error).__name__})"
            await send(_event(error_body(500, message)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[dict[str, Any] | str]:
        shape, tokens = self._shape, 0
        for number in range(len(self._asking.jobs)):
            first = shape.opening(number)
            if first is not None:
                yield shape.chunk([first], None, counted=self._counted)
        async for number, event in self._asking.events():
            if isinstance(event, Failed):
                yield error_body(500, event.message)
                return
            if isinstance(event, Piece):
                yield self._piece(number, event)
            elif isinstance(event, Done):
                tokens += event.tokens
                empty: list[Choice] | None = [] if self._logprobs else None
                last = shape.choice(number, "", empty, event.reason, self._offsets[number])
                yield shape.chunk([last], None, counted=self._counted)
        self._metrics.tokens(self._asking.served.name, self._asking.prompt_tokens, tokens)
        if self._counted:
            counts = usage(self._asking.prompt_tokens, tokens)
            yield shape.chunk([], counts, counted=True)
        yield "[DONE]"

    def _piece(self, number: int, event: Piece) -> dict[str, Any]:
        tokens = event.choices if self._logprobs else None
        choice = self._shape.choice(number, event.text, tokens, None, self._offsets[number])
        self._offsets[number] += len(event.text)
        return self._shape.chunk([choice], None, counted=self._counted)
