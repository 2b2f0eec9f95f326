"""Google's store on 127.0.0.1, as an emulator answers; it has conditions too, and can refuse.

`gcsfs` is turned to it by its environment.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fsspec import get_filesystem_class
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from tests.loopback import answering


@dataclass
class Google:
    """The emulator's state; `meanwhile` is called before a put that names what must be there."""

    storage: Storage
    url: str = ""
    meanwhile: Callable[[], None] = lambda: None
    status: int = 0
    wanted: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """An empty bucket, and nothing that goes wrong."""
        for name in self.names():
            self.storage.delete_file("bucket", name)
        self.meanwhile, self.status = lambda: None, 0
        self.wanted.clear()
        self.asked.clear()

    def put(self, name: str, data: bytes) -> None:
        """Make an object, as another writer does."""
        about = {"bucket": "bucket", "name": name, "generation": "7", "size": str(len(data))}
        self.storage.create_file("bucket", name, data, about)

    def names(self) -> list[str]:
        """All objects."""
        return sorted(self.storage.objects.get("bucket", {}))

    def get(self, name: str) -> bytes:
        """The content of an object."""
        return bytes(self.storage.get_file("bucket", name))

    def allows(self, name: str, generation: str) -> bool:
        """Whether an object is of this generation; 0: there is none."""
        self.wanted.append(generation)
        self.meanwhile()
        found = self.storage.objects.get("bucket", {}).get(name)
        return generation == ("0" if found is None else found["generation"])


class Conditional(RequestHandler):  # type: ignore[misc]
    """The emulator, which knows no conditions, with that of generations, and with refusals."""

    def __init__(self, google: Google, *rest: object) -> None:
        self.google = google
        super().__init__(google.storage, *rest)

    def do_POST(self) -> None:  # noqa: N802
        """Uploads begin with one."""
        self.google.asked.append(self.path.partition("?")[0])
        connection = vars(self)["rfile"]
        body = connection.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(urlsplit(self.path).query)
        if self.google.status:
            self._answer(self.google.status)
        elif "ifGenerationMatch" in query and not self._allowed(query, body):
            self._answer(412)
        else:
            self.rfile = BytesIO(body)
            super().do_POST()
            self.rfile = connection

    def _allowed(self, query: dict[str, list[str]], body: bytes) -> bool:
        if "upload_id" in query:  # a part; the first call was asked
            return True
        told = next(line for line in body.splitlines() if line.startswith(b'{"name"'))
        return self.google.allows(json.loads(told)["name"], query["ifGenerationMatch"][0])

    def _answer(self, status: int) -> None:
        said = json.dumps({"error": {"code": status, "message": "as wanted"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


class _Server(ThreadingHTTPServer):
    """The emulator's own answers one call at a time."""

    def handle_error(self, *_: object) -> None:
        """Clients may go."""


@contextmanager
def running() -> Iterator[Google]:
    """A server on a free port while the block runs."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    made = Google(Storage(use_memory_fs=True))
    made.storage.create_bucket("bucket", {})
    handler = partial(Conditional, made)
    with _Server(("127.0.0.1", 0), handler) as server, answering(server) as made.url:
        yield made


def environment(google: Google) -> dict[str, str]:
    """Variables that turn clients here."""
    return {"STORAGE_EMULATOR_HOST": google.url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@pytest.fixture(scope="session")
def google_server() -> Iterator[Google]:
    """One server for all tests here."""
    with running() as made:
        yield made


@pytest.fixture
def google(
    google_server: Google, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Google]:
    """An empty bucket."""
    for name, value in environment(google_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    get_filesystem_class("gs").clear_instance_cache()  # a client of another server, if any
    yield google_server
    google_server.forget()
