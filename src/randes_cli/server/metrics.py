"""What Prometheus asks for. Labels are names of tasks that are there, never what clients sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from randes_cli.server.engine import Engine

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "randes_requests",
            "Requests by model and status.",
            ["model", "endpoint", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "randes_request_seconds",
            "Seconds from a request's first byte to its answer's last.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "randes_tokens",
            "Tokens of prompts and of answers by model.",
            ["model", "side"],
            registry=self.registry,
        )

    def watch(self, engine: Engine) -> None:
        """Gauges of what waits and runs, read when they are asked for."""
        for name, text, read in (
            ("randes_waiting", "Answers and texts that wait.", lambda: engine.waiting),
            ("randes_running", "Answers under way.", lambda: engine.running),
            ("randes_models", "Models served.", lambda: len(engine.current.models)),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def request(self, model: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a request; `model` is empty where none of that name is there."""
        self._requests.labels(model, endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def tokens(self, model: str, prompt: int, answer: int) -> None:
        """Count the tokens of an answered request."""
        self._tokens.labels(model, "prompt").inc(prompt)
        self._tokens.labels(model, "answer").inc(answer)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class Counted:
    """An application whose requests are counted when their last byte is sent."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            model = scope.get("state", {}).get("model", "")
            route = scope.get("route")
            endpoint = getattr(route, "path", "") if route is not None else ""
            self.metrics.request(model, endpoint, status, time.monotonic() - began)
