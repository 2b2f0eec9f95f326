"""What stands before the application: who may ask, from where, how much, and how slowly."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from randes_cli.server.errors import Refused

#: What may be asked without a key: nothing in it tells of tasks, prompts or answers.
_OPEN = frozenset(("/", "/health", "/favicon.ico"))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do.

    Attributes:
        key: that clients show as ``Authorization: Bearer``; None asks for none.
        body: most bytes of a request.
        seconds: for a request to arrive, and for a client to take what is sent.
        hosts: names in the Host header that are answered; None answers all. A page of another
            site whose name was made to lead here would say another one.
        origins: sites whose pages may ask.
    """

    key: bytes | None = field(default=None, repr=False)
    body: int = 4 * 2**20
    seconds: float = 30.0
    hosts: frozenset[str] | None = None
    origins: tuple[str, ...] = ()


class Guard:
    """Answers what is refused itself, and hands on requests that came whole."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            self._check(scope["path"], headers)
            body = await self._body(scope, headers, receive)
        except Refused as refused:
            # With it the connection ends, whatever else the client meant to send.
            headers = {"connection": "close", **refused.headers}
            await JSONResponse(refused.body(), refused.status, headers)(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _replayed(body, receive), send)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        hosts, key = self.limits.hosts, self.limits.key
        if hosts is not None and _host(headers.get("host", "")) not in hosts:
            raise Refused(421, "this server is asked by another name; see --allow-host")
        if key is None or path in _OPEN:
            return
        kind, _, shown = headers.get("authorization", "").partition(" ")
        given = shown.strip().encode("latin-1")
        if kind.lower() != "bearer" or not hmac.compare_digest(given, key):
            raise Refused(
                401,
                "no such API key; say Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> bytes | None:
        """All of a request; None where the client went. Raises Refused."""
        most, length = self.limits.body, headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise self._too_long()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            raise Refused(415, "say Content-Type: application/json")
        end = asyncio.get_running_loop().time() + self.limits.seconds
        parts, size, more = list[bytes](), 0, True
        while more:
            left = end - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                raise Refused(
                    408, f"the request took longer than {self.limits.seconds:g} s to arrive"
                ) from None
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise self._too_long()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_long(self) -> Refused:
        return Refused(413, f"a request has {self.limits.body} bytes at most")


def _host(text: str) -> str:
    """A Host header without its port."""
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, then what comes after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
