"""When a connection ends: by a clock of the test's own, and at the end of a server."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from randes_cli.server.connection import Connection
from randes_cli.server.generating import Sizes
from randes_cli.server.service import Server, Serving
from tests.server.service import connection, serving, until
from tests.server.test_endings import LONG, Gate, asked


class Clock:
    """A loop whose time the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any, *given: Any) -> Any:
        one = (self.now + seconds, partial(call, *given))
        self.calls.append(one)
        return SimpleNamespace(cancel=lambda: self.calls.remove(one))

    def go(self, end: float) -> None:
        while due := [one for one in self.calls if one[0] <= end]:
            first = min(due, key=lambda one: one[0])
            self.calls.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


class Line:
    """A transport with so many bytes that the client has not taken."""

    def __init__(self, left: int) -> None:
        self.left, self.closing, self.aborted = left, False, False

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def get_extra_info(self, name: str) -> None:
        return None

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize("closing", [False, True])
def test_what_a_client_does_not_take_of_an_answer_ends_its_connection(closing: bool) -> None:
    clock, line = Clock(), Line(50_000)
    config = uvicorn.Config(Mock(), log_config=None, timeout_keep_alive=29)
    made = Connection(config, ServerState(), {}, _loop=clock, seconds=30.0)
    made.connection_made(line)  # type: ignore[arg-type]
    clock.go(10)
    line.closing = closing
    made.cycle = Mock(response_complete=True)
    made.on_response_complete()
    clock.go(39)
    line.left = 40_000
    clock.go(69)
    line.left = 1
    clock.go(99)
    assert not line.aborted and line.closing
    clock.go(100)
    assert line.aborted
    made.connection_lost(ConnectionResetError())
    clock.go(1000)
    assert not clock.calls


def test_a_server_that_ends_drops_requests_that_have_not_come_whole(bank: Path) -> None:
    body = asked({**LONG, "max_tokens": 3})
    sent = [b"", body[:20], body[:-1], body, body + body[:-1]]
    with serving(bank, Sizes(rows=8), Serving(port=0), tasks=("task-1",)) as service:
        gate = Gate(service, 0)
        lines = [connection(service) for _ in sent]
        try:
            for line, data in zip(lines, sent, strict=True):
                line.sendall(data)
            until(lambda: service.engine.running + service.engine.waiting == 2)
            until(lambda: len(service._server.server_state.tasks) == 3)
            service.stop()
            ended = [line.recv(1) for line in lines[:3]]
        finally:
            gate.let()
        assert ended == [b"", b"", b""]
        for line in lines[3:]:
            found = b"".join(iter(partial(line.recv, 2**16), b""))
            assert found.count(b"HTTP/1.1 200") == found.count(b'"finish_reason":"length"') == 1


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_was_just_accepted_does_not_hold_up_the_end(turns: int) -> None:
    async def end(listener: socket.socket) -> int:
        config = uvicorn.Config(
            Mock(),
            http=partial(Connection, seconds=60.0),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        with socket.create_connection(listener.getsockname()):
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.shutdown([listener])
        return len(server.server_state.connections)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(end(listener)) == 0
