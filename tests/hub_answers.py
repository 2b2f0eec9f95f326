"""What the Hub of the tests answers: the routes that the real client asks for."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_state import LARGE, Fault, HubServer, Repo, Request

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
