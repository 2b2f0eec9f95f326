"""The process: listens, and drains when it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import transformers
import uvicorn

from randes_cli.errors import InputOutputError
from randes_cli.interrupts import SIGNALS
from randes_cli.limits import StrPath, as_source
from randes_cli.server.app import Api, application
from randes_cli.server.connection import Connection
from randes_cli.server.edition import Opening, open_edition
from randes_cli.server.engine import Engine
from randes_cli.server.guard import Limits
from randes_cli.server.watch import Watch, state_of

log = logging.getLogger("randes.serve")
#: What uvicorn logs of failures may hold what a client sent; they are logged here without.
_SILENT = logging.CRITICAL + 1
#: Files that a server opens at the least: three of the loop, a new edition's, and clients.
_FILES = 8
#: Seconds in which what the loop meets again is not told again.
_SILENCE = 60.0
#: Where a server that listens for this machine alone is reached.
_HERE = frozenset(("127.0.0.1", "localhost", "[::1]"))


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server runs.

    Attributes:
        waiting: how many answers and texts may wait.
        drain: seconds that requests under way have when the server is asked to stop.
        prompts: whether prompts are logged.
        look: seconds between looks at the bank's file.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    waiting: int = 512
    drain: float = 60.0
    prompts: bool = False
    look: float = 1.0
    limits: Limits = field(default_factory=Limits)


class Server(uvicorn.Server):
    """Drains at the first signal, and gives up at the second; a drained server ended well."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer. What the loop itself meets (no more open files) is a line of the log."""
        self._told: dict[str, float] = {}
        asyncio.get_running_loop().set_exception_handler(self._log_of_the_loop)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. Connections that were just accepted are told to end as others are."""
        for server in self.servers:
            server.close()
        for _ in range(3):  # a task, its transport, and the connection
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    def _log_of_the_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A line a minute of each kind: the loop tells of a refused `accept` thousands of times."""
        message = str(context.get("message"))
        if loop.time() >= self._told.get(message, 0):
            self._told[message] = loop.time() + _SILENCE
            log.error("%s: %s", message, context.get("exception"))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end the command, while there is something to drain."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once where it was asked before."""
        self.force_exit = self.should_exit
        self.should_exit = True


class Service:
    """A server with its address, and a bank opened for it. `run` it once.

    Raises InputOutputError where the address cannot be had, and what `open_edition` raises.

    Attributes:
        address: where it is reached, once it runs.
    """

    def __init__(self, opening: Opening, how: Serving) -> None:
        transformers.utils.logging.disable_progress_bar()
        self._listener = _listen(how.host, how.port)
        self.address = _address(self._listener)
        try:
            seen = state_of(opening.bank)
            self.engine = Engine(open_edition(opening), how.waiting)
            _require_files(self._listener)
        except BaseException:
            self._listener.close()
            raise
        self.watch = Watch(self.engine, opening, seen, every=how.look)
        self._server = Server(_config(Api(self.engine, self.watch, prompts=how.prompts), how))

    def run(self) -> None:
        """Answer requests until the process, or `stop`, asks to end; then drain."""
        self.engine.start()
        self.watch.start()
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self.watch.stop()
            self.engine.stop()
            self._listener.close()

    def stop(self) -> None:
        """Take no more requests, and end when those under way are answered."""
        self._server.should_exit = True


def serve(
    bank: StrPath,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    tasks: Sequence[str] | None = None,
    base: StrPath | None = None,
    coefficient: float | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    hold: str = "dense",
    ready: Callable[[str], None] = print,
) -> None:
    """Serve every task of a bank with OpenAI's interface, until SIGTERM or SIGINT.

    Requests of different tasks share batches. A bank that is replaced is taken up. `ready` is
    told the address (port 0 takes any) when requests are answered; `hold`, `base` and
    `coefficient` are as in `attach`, `dtype` is torch's name for one. The command line has more.

    Raises MissingError for unknown tasks and where there is nothing to serve, InputOutputError for
    an address that cannot be had.
    """
    service = Service(
        Opening(
            as_source(bank),
            None if base is None else as_source(base),
            tuple(tasks) if tasks is not None else None,
            device,
            dtype,
            hold,
            coefficient,
        ),
        Serving(
            host,
            port,
            limits=Limits(api_key.encode() if api_key else None, hosts=hosts_of(host, ())),
        ),
    )
    ready(service.address)
    service.run()


def _config(api: Api, how: Serving) -> uvicorn.Config:
    seconds = how.limits.seconds
    return uvicorn.Config(
        application(api, how.limits),
        http=partial(Connection, seconds=seconds),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=_SILENT,
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(1, int(seconds)),
        timeout_graceful_shutdown=int(how.drain),
    )


def hosts_of(host: str, more: tuple[str, ...]) -> frozenset[str] | None:
    """The names that are answered: of a server for this machine alone its own, else all."""
    if host in ("127.0.0.1", "localhost", "::1"):
        return _HERE | {name.lower() for name in more}
    return frozenset(name.lower() for name in more) or None


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address, before anything takes long. Raises InputOutputError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, number)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(2048)
        except BaseException:
            made.close()
            raise
    except (OSError, OverflowError) as error:
        raise InputOutputError(f"cannot listen at {host} port {port}: {error}") from error
    return made


def _require_files(listener: socket.socket) -> None:
    """Raise InputOutputError where a client could not be answered for want of open files."""
    made: list[socket.socket] = []
    try:
        for _ in range(_FILES):
            made.append(listener.dup())
    except OSError as error:
        raise InputOutputError(
            f"cannot answer anybody: {error.strerror}; allow more of them (ulimit -n)"
        ) from error
    finally:
        for one in made:
            one.close()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
