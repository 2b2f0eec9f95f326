"""moto's S3 server on 127.0.0.1, which can misbehave; `s3fs` is turned to it by its environment.

`requests` holds what was asked and how many bytes of bodies went out; `fail` and `reset` break
coming answers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any
from urllib.parse import unquote

import pytest

from tests.loopback import answering

ACCESS, SECRET = "AKIATESTONLY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"


@dataclass
class Asked:
    """One request as it came, and the answer as it went."""

    method: str
    path: str
    query: str
    range: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` whose paths have `part`."""

    part: str
    times: int
    method: str
    status: int
    code: str


@dataclass
class Store:
    """The server's state, and a bucket of its own for each test."""

    url: str
    requests: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    bucket: str = ""

    def at(self, name: str = "") -> str:
        """The address of an object of this test's bucket."""
        return f"s3://{self.bucket}/{name}".rstrip("/")

    def fail(
        self, part: str, status: int, code: str = "", *, times: int = 1000, method: str = "GET"
    ) -> None:
        """Answer the next requests with an error of S3; status 0 resets the connection."""
        self.faults.append(Fault(part, times, method, status, code))

    def reset(self, part: str, *, times: int = 1000, method: str = "GET") -> None:
        """Reset the connections of the next requests."""
        self.fail(part, 0, times=times, method=method)

    def forget(self) -> None:
        """Empty the log, and mend what was broken."""
        self.requests.clear()
        self.faults.clear()

    def asked(self, name: str, method: str = "GET") -> list[Asked]:
        """The requests for one object."""
        return [one for one in self.requests if one.method == method and one.path.endswith(name)]

    def bytes_sent(self, name: str) -> int:
        """Bytes of an object that went out."""
        return sum(one.sent for one in self.asked(name) if one.status in (200, 206))

    def put(self, name: str, data: bytes) -> None:
        """Make an object."""
        _client(self.url).put_object(Bucket=self.bucket, Key=name, Body=data)

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        """Make an object of every file below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def get(self, name: str) -> bytes:
        """The content of an object."""
        found: bytes = _client(self.url).get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return found

    def delete(self, name: str) -> None:
        """Remove an object."""
        _client(self.url).delete_object(Bucket=self.bucket, Key=name)

    def age(self, name: str, hours: float) -> None:
        """Have an object be there for so long."""
        from moto.s3.models import s3_backends

        for account in s3_backends.values():
            for backend in account.values():
                if self.bucket in backend.buckets:
                    found = backend.get_object(self.bucket, name)
                    found.last_modified -= timedelta(hours=hours)

    def names(self) -> list[str]:
        """All objects of the bucket."""
        found = _client(self.url).list_objects_v2(Bucket=self.bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def uploads(self) -> list[str]:
        """Uploads in parts that were neither completed nor aborted."""
        found = _client(self.url).list_multipart_uploads(Bucket=self.bucket)
        return [entry["Key"] for entry in found.get("Uploads", [])]

    def begin(self, name: str) -> str:
        """Begin an upload in parts that nobody ends."""
        made: str = _client(self.url).create_multipart_upload(Bucket=self.bucket, Key=name)[
            "UploadId"
        ]
        return made

    def signed(self, name: str) -> str:
        """A presigned address of an object."""
        found: str = _client(self.url).generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": name}
        )
        return found


@cache
def _client(url: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
    )


class _Front:
    """The WSGI application: faults first, then moto."""

    def __init__(self, store: Store, app: Any) -> None:
        self.store, self.app = store, app

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        headers = {k[5:].lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        entry = Asked(
            environ["REQUEST_METHOD"],
            unquote(environ["PATH_INFO"]),
            environ.get("QUERY_STRING", ""),
            headers.get("range", ""),
            headers,
        )
        if not headers.get("user_agent", "").startswith("Boto3"):  # the tests' own client
            self.store.requests.append(entry)
            fault = self._fault(entry) or self._unmet(entry)
            if fault is not None and not fault.status:
                return self._reset(environ)
            if fault is not None:
                entry.status = fault.status
                said = f"<Error><Code>{fault.code}</Code><Message>as wanted</Message></Error>"
                start(f"{fault.status} {fault.code}", [("Content-Type", "application/xml")])
                return [said.encode() if entry.method != "HEAD" else b""]

        def begin(status: str, *rest: Any) -> Any:
            entry.status = int(status.split(maxsplit=1)[0])
            return start(status, *rest)

        body = b"".join(self.app(environ, begin))
        entry.sent = len(body)
        return [body]

    def _fault(self, entry: Asked) -> Fault | None:
        for fault in self.store.faults:
            where = f"{entry.path}?{entry.query}"
            if fault.times and fault.method == entry.method and fault.part in where:
                fault.times -= 1
                return fault
        return None

    def _unmet(self, entry: Asked) -> Fault | None:
        """What S3 answers, and moto does not, where parts are to replace what is not there."""
        wanted = entry.headers.get("if_match")
        if wanted is None or entry.method != "POST":
            return None
        bucket, key = entry.path.strip("/").split("/", 1)
        found = _client(self.store.url).list_objects_v2(Bucket=bucket, Prefix=key)
        tags = [one["ETag"] for one in found.get("Contents", []) if one["Key"] == key]
        if wanted in tags:
            return None
        status, code = (412, "PreconditionFailed") if tags else (404, "NoSuchKey")
        return Fault(key, 1, "POST", status, code)

    def _reset(self, environ: dict[str, Any]) -> Iterable[bytes]:
        socket = environ["werkzeug.socket"]
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        os.close(socket.detach())
        raise ConnectionResetError("as the test wants it")


@contextmanager
def running() -> Iterator[Store]:
    """A server on a free port while the block runs."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = Store("")
    app = _Front(store, DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.log = lambda *_: None  # type: ignore[method-assign]
    with answering(server) as store.url:
        yield store


def environment(store: Store) -> dict[str, str]:
    """Variables that turn clients here."""
    return {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }


_NUMBERS = count()


@pytest.fixture(scope="session")
def store_server() -> Iterator[Store]:
    """One server for all tests here: it takes a second to start."""
    with running() as store:
        yield store


@pytest.fixture
def store(store_server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket of its own; the waits between tries of the store's client take no time."""
    for name, value in environment(store_server).items():
        monkeypatch.setenv(name, value)
    store_server.bucket = f"bucket-{next(_NUMBERS)}"
    _client(store_server.url).create_bucket(Bucket=store_server.bucket)
    store_server.forget()
    monkeypatch.setattr("botocore.retryhandler.random.random", lambda: 0.0)
    yield store_server
    store_server.forget()
