"""Runs a request handler, or a server, on a free port of 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **bound: Any) -> Iterator[str]:
    """The server's address while the block runs; `bound` are attributes of its handlers."""
    kind = type("BoundHandler", (handler,), bound)
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server, answering(server) as address:
        yield address


@contextmanager
def answering(server: Any) -> Iterator[str]:
    """The address of a server of 127.0.0.1, which answers while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
