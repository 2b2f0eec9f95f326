"""Azure's blob store on 127.0.0.1, as far as randes asks it: objects, blocks, copies, conditions.

`adlfs` is turned to it by a connection string. What it answers was compared with Azurite's answers.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime
from hashlib import md5
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from fsspec import get_filesystem_class

from tests.loopback import serving

ACCOUNT, KEY = "devstoreaccount1", b64encode(b"a key of the tests, and of nothing else").decode()


@dataclass
class Blob:
    """An object as it is now."""

    data: bytes
    tag: str
    since: datetime


@dataclass
class Azure:
    """What the server holds, by container and name; `asked` are verbs and what they were of.

    `copies`: how the next copy stands, each time that it is looked at.
    """

    url: str = ""
    blobs: dict[str, Blob] = field(default_factory=dict)
    blocks: dict[str, dict[str, bytes]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, name: str, data: bytes) -> Blob:
        """Make an object; blocks that were sent to its name are gone."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        self.blocks.pop(name, None)
        self.blobs[name] = Blob(data, f'"0x{next(self.numbers):X}"', now)
        return self.blobs[name]

    def forget(self) -> None:
        """An empty container."""
        self.blobs.clear()
        self.blocks.clear()
        self.asked.clear()

    def names(self) -> list[str]:
        """All objects, without the container."""
        return [name.partition("/")[2] for name in sorted(self.blobs)]

    def get(self, name: str) -> bytes:
        """The content of an object."""
        return self.blobs[f"bucket/{name}"].data


class _Handler(BaseHTTPRequestHandler):
    azure: Azure
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _do(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        name = unquote(url.path).removeprefix(f"/{ACCOUNT}/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.azure.lock:
            kind = query.get("comp") or ("copy" if "x-ms-copy-source" in self.headers else "")
            self.azure.asked.append(f"{self.command} {kind} {name}")
            if query.get("comp") == "list":
                listed = _listed(self.azure, name, query).encode()
                self._answer(200, listed, more={"Content-Type": "application/xml"})
            elif query.get("restype") == "container":
                self._answer(201 if self.command == "PUT" else 200)
            elif self.command == "PUT":
                self._put(name, query, body)
            else:
                self._read(name)

    do_GET = do_HEAD = do_PUT = do_DELETE = _do  # noqa: N815

    def _put(self, name: str, query: Mapping[str, str], body: bytes) -> None:
        azure, kind = self.azure, query.get("comp", "")
        if kind == "block":
            azure.blocks.setdefault(name, {})[query["blockid"]] = body
            self._answer(201)
            return
        old = azure.blobs.get(name)
        wanted, no = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if (wanted and (old is None or old.tag != wanted)) or (no == "*" and old is not None):
            self._answer(409 if no else 412, code="BlobAlreadyExists" if no else "ConditionNotMet")
            return
        status, data, more = 201, body, dict[str, str]()
        if kind == "blocklist":
            ids = [str(one.text) for one in ElementTree.fromstring(body)]
            if len({len(one) for one in ids}) > 1 or not set(ids) <= set(azure.blocks[name]):
                self._answer(400, code="InvalidBlockList")
                return
            data = b"".join(azure.blocks[name][one] for one in ids)
        elif "x-ms-copy-source" in self.headers:
            path = unquote(urlsplit(self.headers["x-ms-copy-source"]).path)
            data = azure.blobs[path.removeprefix(f"/{ACCOUNT}/")].data
            status, more = 202, self._copy()
        self._answer(status, more={**_marks(azure.put(name, data)), **more})

    def _copy(self) -> dict[str, str]:
        status = self.azure.copies.pop(0) if self.azure.copies else "success"
        return {"x-ms-copy-status": status, "x-ms-copy-id": "1"}

    def _read(self, name: str) -> None:
        found = self.azure.blobs.get(name)
        if found is None:
            self._answer(404, code="BlobNotFound")
            return
        if self.command == "DELETE":
            del self.azure.blobs[name]
            self._answer(202)
            return
        said = self.headers.get("x-ms-range") or self.headers.get("Range")
        more = {**_marks(found), "x-ms-blob-type": "BlockBlob"}
        more |= self._copy() if self.azure.copies else {}
        if said is None or self.command == "HEAD":
            self._answer(200, found.data, more=more)
            return
        first, last = (int(one) for one in said.removeprefix("bytes=").split("-"))
        data = found.data[first : last + 1]
        more["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{len(found.data)}"
        self._answer(206, data, more=more)

    def _answer(
        self, status: int, body: bytes = b"", *, code: str = "", more: Mapping[str, str] = {}
    ) -> None:
        if code:
            body = f"<Error><Code>{code}</Code><Message>as wanted</Message></Error>".encode()
            more = {"x-ms-error-code": code, "Content-Type": "application/xml"}
        self.send_response(status)
        for key, value in {"x-ms-request-id": "1", "x-ms-version": "2023-11-03", **more}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _marks(blob: Blob) -> dict[str, str]:
    since = format_datetime(blob.since, usegmt=True)
    return {"ETag": blob.tag, "Last-Modified": since, "x-ms-creation-time": since}


def _listed(azure: Azure, container: str, query: Mapping[str, str]) -> str:
    """Names of a container that begin alike, up to a delimiter, as one page."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    names = dict.fromkeys(azure.blobs)
    if "uncommittedblobs" in query.get("include", ""):
        names |= dict.fromkeys(azure.blocks)
    found = dict[str, str]()
    for whole in sorted(names):
        name = whole.removeprefix(f"{container}/")
        if name == whole or not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        folder, cut, _ = rest.partition(delimiter) if delimiter else (rest, "", "")
        shown = escape(prefix + folder + cut)
        kind = "BlobPrefix" if cut else "Blob"
        about = "" if cut else _about(azure.blobs.get(whole))
        found[shown] = f"<{kind}><Name>{shown}</Name>{about}</{kind}>"
    entries = "".join(found.values())
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults '
        f'ServiceEndpoint="{azure.url}" ContainerName="{container}"><Blobs>{entries}</Blobs>'
        "<NextMarker /></EnumerationResults>"
    )


def _about(blob: Blob | None) -> str:
    """What is listed of an object, or of blocks of none."""
    if blob is None:
        blob = Blob(b"", "", datetime.now(timezone.utc))
    marks = {
        "Creation-Time": format_datetime(blob.since, usegmt=True),
        "Last-Modified": format_datetime(blob.since, usegmt=True),
        "Etag": blob.tag,
        "Content-Length": str(len(blob.data)),
        "Content-MD5": b64encode(md5(blob.data).digest()).decode(),
        "BlobType": "BlockBlob",
    }
    return (
        f"<Properties>{''.join(f'<{k}>{escape(v)}</{k}>' for k, v in marks.items())}</Properties>"
    )


@contextmanager
def running() -> Iterator[Azure]:
    """A server on a free port while the block runs."""
    made = Azure()
    with serving(_Handler, azure=made) as address:
        made.url = f"{address}/{ACCOUNT}"
        yield made


def environment(azure: Azure) -> dict[str, str]:
    """Variables that turn clients here."""
    words = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY}"
    return {"AZURE_STORAGE_CONNECTION_STRING": f"{words};BlobEndpoint={azure.url};"}


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Azure]:
    """One server for all tests here."""
    with running() as made:
        yield made


@pytest.fixture
def azure(azure_server: Azure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Azure]:
    """An empty container."""
    for name, value in environment(azure_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    get_filesystem_class("az").clear_instance_cache()  # a client of another server, if any
    yield azure_server
    azure_server.forget()
