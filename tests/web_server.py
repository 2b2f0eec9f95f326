"""A web server on 127.0.0.1 that serves files by range, and can misbehave."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler

import pytest

from tests.loopback import serving

HALF = 1


@dataclass
class Web:
    """The server's state: files by path, and what goes wrong.

    Attributes:
        faults: statuses of the next answers, with their headers; 0 resets the connection, and
            HALF ends it amid the body.
        ranges: whether requests for a range get one.
        shift: by how many bytes a range begins before what was asked for.
        loops: whether an answer is the address itself.
        login: ``user:password`` that is asked for.
        sent: bytes of bodies that went out, by path.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    loops: bool = False
    login: str = ""
    sent: dict[str, int] = field(default_factory=dict)


@lru_cache(64)
def _tag(data: bytes) -> str:
    return sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    web: Web

    def log_message(self, *_: object) -> None:
        """Keep the terminal clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        fault = self.web.faults.pop(0) if self.web.faults and self.command == "GET" else None
        asked = "Basic " + b64encode(self.web.login.encode()).decode()
        half = fault is not None and fault[0] == HALF
        self.close_connection |= half
        if fault is not None and not fault[0]:
            self.close_connection = True
            self.connection.close()
        elif fault is not None and not half:
            self._send(fault[0], b"", fault[1])
        elif self.web.login and self.headers.get("Authorization") != asked:
            self._send(401, b"")
        elif self.web.loops:
            self._send(302, b"", {"Location": path})
        elif path not in self.web.files:
            self._send(404, b"")
        else:
            self._send_file(path, half=half)

    def _send_file(self, path: str, *, half: bool) -> None:
        data = self.web.files[path]
        tag = {"ETag": _tag(data), "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if wanted and self.web.ranges:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            off = min(start, self.web.shift)
            start, stop = start - off, stop - off
            where = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self._send(206, data[start:stop], {**tag, **where}, half=half)
        else:
            about = tag if self.web.ranges else {"Accept-Ranges": "none"}
            self._send(200, data, about, half=half)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, half: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            path = self.path.partition("?")[0]
            self.web.sent[path] = self.web.sent.get(path, 0) + len(body)
            self.wfile.write(body[: len(body) // 2] if half else body)


@contextmanager
def running() -> Iterator[Web]:
    """A server on a free port while the block runs."""
    web = Web()
    with serving(_Handler, web=web) as web.url:
        yield web


@pytest.fixture
def web() -> Iterator[Web]:
    """A server of its own."""
    with running() as server:
        yield server
