"""A Hugging Face Hub on 127.0.0.1 that speaks what the real client asks for, and can misbehave.

Repositories are branches of commits in memory. Files of `LARGE` bytes or more are kept as the
real Hub keeps them: the answer redirects to another host, which serves ranges. `requests` holds
what was asked and how many bytes of bodies went out; `fail` and `drop` break coming answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.loopback import serving

LARGE = 2000


@dataclass
class Request:
    """One request as it came, and the answer as it went."""

    method: str
    path: str
    range: str | None
    token: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` whose paths have `part`."""

    part: str
    times: int
    method: str = ""
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None


@dataclass
class Repo:
    """Commits by id, branches by name; a private one needs a token."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False

    def commit(self, branch: str, changes: Mapping[str, bytes | None]) -> str:
        """Add a commit with these files changed (None: gone); return its id."""
        both = {**self.commits.get(self.branches.get(branch, ""), {}), **changes}
        files = {path: data for path, data in both.items() if data is not None}
        seed = f"{branch} {len(self.commits)} {sorted(files)}"
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit that a branch or an id names."""
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


class HubServer:
    """The server's state; see `running`."""

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.blobs: dict[str, bytes] = {}
        self.collections: dict[str, list[dict[str, Any]]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.page = 1000

    def add(self, name: str, files: Mapping[str, bytes | None], *, branch: str = "main") -> str:
        """Commit files to a repository, which is made where missing; return the commit's id."""
        return self.repos.setdefault(name, Repo()).commit(branch, files)

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The files at the tip of a branch."""
        repo = self.repos[name]
        return repo.commits[repo.branches[branch]]

    def fail(
        self,
        part: str,
        status: int,
        code: str = "",
        *,
        times: int = 100,
        method: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer the next requests with a status and the Hub's error code."""
        self.faults.append(Fault(part, times, method, status, code, headers or {}))

    def drop(self, part: str, after: int, *, times: int = 100) -> None:
        """Close the connection of the next GETs after so many bytes of the body."""
        self.faults.append(Fault(part, times, "GET", after=after))

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that turn the client of a new process here, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def forget(self) -> None:
        """Empty the log of requests."""
        self.requests.clear()

    @property
    def body_bytes(self) -> int:
        """Bytes of the bodies that went out."""
        return sum(request.sent for request in self.requests)


Answer = tuple[int, dict[str, str], bytes]


def _json(value: object, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


def _error(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Code": code} if code else {}
    return status, {**headers, "X-Error-Message": message}, b""


class Handler(BaseHTTPRequestHandler):
    """Routes one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Keep the terminal clean."""

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.entry = Request(self.command, self.path, self.headers.get("Range"), bearer)
        if "/api/agent-harnesses" not in self.path:
            self.hub.requests.append(self.entry)
        fault = self._fault()
        answer = (
            _error(fault.status, fault.code, "as the test wants it")
            if fault and fault.status
            else self._route(body)
        )
        if fault:
            answer = answer[0], {**answer[1], **fault.headers}, answer[2]
        self._send(answer, fault.after if fault else None)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _fault(self) -> Fault | None:
        for fault in self.hub.faults:
            wanted = fault.part in self.path and fault.method in ("", self.command)
            if fault.times and wanted:
                fault.times -= 1
                return fault
        return None

    def _send(self, answer: Answer, cut: int | None) -> None:
        status, headers, body = answer
        self.entry.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if cut is None else body[:cut]
        self.entry.sent = len(sent)
        self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True

    def _route(self, body: bytes) -> Answer:
        parts = urlsplit(self.path)
        routes: list[tuple[str, Callable[..., Answer]]] = [
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/cdn/(.+)", self._cdn),
            (r"/api/(repos/create|validate-yaml|whoami-v2)", self._api),
            (r"/api/collections", self._new_collection),
            (r"/api/collections/([^/]+/[^/]+)/items", self._new_item),
            (r"/api/collections/([^/]+/[^/]+)", self._collection),
            (r"/api/models/([^/]+/[^/]+)/branch/(.+)", self._branch),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/(.+)", self._store),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
        ]
        for pattern, route in routes:
            found = re.fullmatch(pattern, parts.path)
            if found:
                return route(*(unquote(g) if g else g for g in found.groups()), body)
        return _error(404, "", "no such page")

    # Reading

    def _at(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | Answer:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.entry.token is None):
            return _error(404 if self.entry.token else 401, "RepoNotFound", "Repository not found")
        sha = repo.find(revision or "main")
        if sha is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.commits[sha]

    def _info(self, name: str, revision: str | None, _: bytes) -> Answer:
        found = self._at(name, revision)
        if len(found) == 3:
            return found
        sha, files = found
        siblings = [{"rfilename": path} for path in files]
        body = {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []}
        return _json({**body, "cardData": self.hub.cards.get(name, {})})

    def _tree(self, name: str, revision: str, _: bytes) -> Answer:
        found = self._at(name, revision)
        if len(found) == 3:
            return found
        rows = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in found[1].items()
        ]
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        stop = start + self.hub.page
        link = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={stop}"
        more = {"Link": f'<{link}>; rel="next"'} if stop < len(rows) else {}
        return _json(rows[start:stop], 200, **more)

    def _resolve(self, name: str, revision: str, path: str, _: bytes) -> Answer:
        found = self._at(name, revision)
        if len(found) == 3:
            return found
        sha, files = found
        if path not in files:
            status, headers, _ = _error(404, "EntryNotFound", "Entry not found")
            return status, {**headers, "X-Repo-Commit": sha}, b""
        data = files[path]
        etag = hashlib.sha256(data).hexdigest()
        commit = {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}
        if len(data) < LARGE:
            return self._bytes(data, commit)
        self.hub.blobs[etag] = data
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        linked = {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        return 302, {**commit, **linked, "Location": f"{elsewhere}/cdn/{etag}"}, b""

    def _cdn(self, etag: str, _: bytes) -> Answer:
        return self._bytes(self.hub.blobs[etag], {"ETag": f'"{etag}"'})

    def _bytes(self, data: bytes, headers: dict[str, str]) -> Answer:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return 200, headers, data
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return 416, headers, b""
        whole = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        return 206, {**headers, **whole}, data[start:stop]

    # Writing

    def _api(self, verb: str, body: bytes) -> Answer:
        if verb == "validate-yaml":
            return _json({"errors": [], "warnings": []})
        if self.entry.token is None:
            return _error(401, "", "Invalid username or password.")
        if verb == "whoami-v2":
            return _json({"name": "tester", "type": "user", "orgs": []})
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{name}", "id": name, "name": name}
        if name in self.hub.repos:
            return _json({"error": "You already created this model repo", **url}, 409)
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.hub.repos[name] = Repo(private=private)
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return _json(url)

    def _shown(self, slug: str) -> dict[str, Any]:
        owner, title = slug.split("/")
        return {
            "slug": slug,
            "title": title.rpartition("-")[0],
            "owner": {"name": owner},
            "items": self.hub.collections[slug],
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "position": 0,
            "private": False,
            "theme": "green",
            "upvotes": 0,
        }

    def _collection(self, slug: str, _: bytes) -> Answer:
        return _json(self._shown(slug))

    def _new_collection(self, body: bytes) -> Answer:
        wanted = json.loads(body)
        slug = f"{wanted['namespace']}/{wanted['title'].lower().replace(' ', '-')}-0123456789ab"
        if slug in self.hub.collections:
            return _json({"slug": slug}, 409)
        self.hub.collections[slug] = []
        return _json(self._shown(slug))

    def _new_item(self, slug: str, body: bytes) -> Answer:
        wanted = json.loads(body)
        items = self.hub.collections.get(slug)
        if items is None:
            return _error(404, "", "Collection not found")
        if any(item["id"] == wanted["item"]["id"] for item in items):
            return _json({"error": "already there"}, 409)
        note = {"text": wanted.get("note", "")}
        items.append(
            {"_id": str(len(items)), "position": len(items), "note": note, **wanted["item"]}
        )
        return _json(self._shown(slug))

    def _branch(self, name: str, branch: str, _: bytes) -> Answer:
        repo = self.hub.repos[name]
        if branch in repo.branches:
            return _json({"error": "Reference already exists"}, 409)
        repo.branches[branch] = repo.branches["main"]
        return _json({}, 201)

    def _preupload(self, name: str, revision: str, body: bytes) -> Answer:
        found = self._at(name, revision)
        if len(found) == 3:
            return found
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return _json({"files": modes})

    def _batch(self, name: str, body: bytes) -> Answer:
        objects = [
            {
                "oid": wanted["oid"],
                "size": wanted["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}},
            }
            for wanted in json.loads(body)["objects"]
        ]
        return _json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return _error(400, "", "not the content that was announced")
        self.hub.blobs[oid] = body
        return 200, {}, b""

    def _commit(self, name: str, branch: str, body: bytes) -> Answer:
        changes: dict[str, bytes | None] = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changes[value["path"]] = b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                changes[value["path"]] = None
        sha = self.hub.add(name, changes, branch=branch)
        return _json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})


@contextmanager
def running() -> Iterator[HubServer]:
    """A server on a free port of 127.0.0.1 while the block runs."""
    hub = HubServer()
    with serving(Handler, hub=hub) as hub.url:
        yield hub


def _renew_sessions() -> None:
    """Let the client forget open connections, by whichever name its version has for it."""
    import huggingface_hub

    close = getattr(huggingface_hub, "close_session", None)
    if close is not None:
        close()


@pytest.fixture(scope="session")
def own_session() -> Iterator[None]:
    """One HTTP session of the client for all tests here: to make one takes a tenth of a second."""
    _renew_sessions()
    yield
    _renew_sessions()


@pytest.fixture
def hub(own_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server, and the client of this process turned to it, with a cache and token of its own.

    The client reads its environment when it is imported, so its constants are set instead;
    `HubServer.environment` does the same for a new process. Waits between retries take no time.
    """
    from huggingface_hub import constants, file_download, hf_api

    home = tmp_path / "hf"
    with running() as server:
        changed = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(home / "agent_harnesses.json"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in changed.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        for module in (hf_api, file_download):  # before 1.0 they had copies of their own
            for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, changed[name])
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server
