"""The addresses of the server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from randes_cli.server import reading
from randes_cli.server.asking import Asking, add_answers
from randes_cli.server.bodies import ChatBody, ClassifyBody, CompletionBody, EmbeddingBody
from randes_cli.server.edition import Edition, Served
from randes_cli.server.engine import Engine
from randes_cli.server.errors import Refused, answer_failures
from randes_cli.server.guard import Guard, Limits
from randes_cli.server.kinds import Kind
from randes_cli.server.metrics import Counted, Metrics
from randes_cli.server.shapes import Chat, Shape
from randes_cli.server.streams import EventStream, whole_answer
from randes_cli.server.watch import Watch

log = logging.getLogger("randes.serve")


class Api:
    """What the addresses do. A request keeps the edition that it began with."""

    def __init__(self, engine: Engine, watch: Watch, *, prompts: bool = False) -> None:
        self.engine, self.watch, self.prompts = engine, watch, prompts
        self.metrics = Metrics()
        self.metrics.watch(engine)

    async def chat(self, body: ChatBody, request: Request) -> Response:
        edition = self.engine.current
        served = self._served(edition, body.model, Kind.generate, request)
        messages = [message.plain() for message in body.messages]
        ids = await asyncio.to_thread(served.words.chat, messages)
        asking = Asking(self.engine, served)
        add_answers(asking, ids, body, field="messages")
        return await self._answer(asking, body, request, Chat(served, edition.fingerprint))

    async def complete(self, body: CompletionBody, request: Request) -> Response:
        edition = self.engine.current
        served = self._served(edition, body.model, Kind.generate, request)
        asking = Asking(self.engine, served)
        for prompt in body.prompts:
            if isinstance(prompt, str):
                prompt = await asyncio.to_thread(served.words.encode, prompt)  # noqa: PLW2901
            add_answers(asking, prompt, body, field="prompt")
        return await self._answer(asking, body, request, Shape(served, edition.fingerprint))

    async def _answer(
        self,
        asking: Asking,
        body: ChatBody | CompletionBody,
        request: Request,
        shape: Shape,
    ) -> Response:
        if self.prompts:
            log.info("%s: %s", asking.served.name, json.dumps(body.model_dump(exclude_none=True)))
        logprobs = body.told is not None
        if not body.stream:
            try:
                asking.submit()
                return await whole_answer(asking, request, shape, self.metrics, logprobs=logprobs)
            finally:
                asking.cancel()
        asking.submit()
        options = body.stream_options
        return EventStream(
            asking,
            shape,
            self.metrics,
            logprobs=logprobs,
            counted=bool(options and options.include_usage),
        )

    async def embed(self, body: EmbeddingBody, request: Request) -> Response:
        served = self._served(self.engine.current, body.model, Kind.embed, request)
        return await reading.embeddings(self.engine, served, body, request, self.metrics)

    async def classify(self, body: ClassifyBody, request: Request) -> Response:
        served = self._served(self.engine.current, body.model, Kind.classify, request)
        return await reading.classes(self.engine, served, body, request, self.metrics)

    @staticmethod
    def _served(edition: Edition, name: str, kind: Kind, request: Request) -> Served:
        served = edition.find(name)
        request.state.model = served.name
        if served.kind is not kind:
            asked = {
                Kind.generate: "/v1/completions",
                Kind.embed: "/v1/embeddings",
                Kind.classify: "/v1/classify",
            }
            raise Refused(422, f"{name} is not for this; ask {asked[served.kind]}", param="model")
        return served

    async def models(self) -> dict[str, Any]:
        edition = self.engine.current
        return {
            "object": "list",
            "data": [_model(edition, one) for one in edition.models.values()],
            "randes": {"bytes": edition.memory, "fingerprint": edition.fingerprint},
        }

    async def model(self, name: str) -> dict[str, Any]:
        edition = self.engine.current
        return _model(edition, edition.find(name))

    async def health(self) -> Response:
        return JSONResponse({"status": "ok", "reload": "failed" if self.watch.trouble else "ok"})

    async def page_of_metrics(self) -> Response:
        """What Prometheus reads."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(edition: Edition, served: Served) -> dict[str, Any]:
    """A model as the list has it; `randes` is what other servers do not know."""
    expected = served.expected
    return {
        "id": served.name,
        "object": "model",
        "created": edition.created,
        "owned_by": "randes",
        "randes": {
            "kind": served.kind.value,
            "chat": served.kind is Kind.generate and served.words.template is not None,
            "context": served.context,
            "labels": list(served.reader.labels),
            "base": served.task is None,
            "predicted_cosine": expected and expected.predicted_cosine,
            "expected": expected and expected.expected,
            "verdict": expected and expected.verdict,
            "approximate": expected and expected.approximate,
        },
    }


def application(api: Api, limits: Limits) -> ASGIApp:
    app = FastAPI(title="randes", openapi_url=None, docs_url=None, redoc_url=None)
    app.post("/v1/chat/completions", response_model=None)(api.chat)
    app.post("/v1/completions", response_model=None)(api.complete)
    app.post("/v1/embeddings", response_model=None)(api.embed)
    app.post("/v1/classify", response_model=None)(api.classify)
    asked: dict[str, Any] = {
        "/v1/models": api.models,
        "/v1/models/{name}": api.model,
        "/": page,
        "/health": api.health,
        "/metrics": api.page_of_metrics,
    }
    for path, answer in asked.items():
        app.api_route(path, methods=["GET", "HEAD"], response_model=None)(answer)
    answer_failures(app)
    guarded: ASGIApp = Guard(Counted(app, api.metrics), limits)
    if limits.origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=list(limits.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return guarded


@cache
def _parts() -> tuple[str, str]:
    """The page, and the policy that lets its own style and script run and nothing else."""
    folder = files("randes_cli.server")
    page, style, script = (
        (folder / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = [
        "default-src 'none'",
        f"style-src '{_digest(style)}'",
        f"script-src '{_digest(script)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return page, "; ".join(policy)


def _digest(text: str) -> str:
    made = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(made).decode()


async def page() -> Response:
    """The page. It tells nothing of the bank: it asks for that itself, with the key if need be."""
    text, policy = _parts()
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        },
    )
