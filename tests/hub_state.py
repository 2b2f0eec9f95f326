"""What the Hub of the tests holds, what was asked of it, and what is to go wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
