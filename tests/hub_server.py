"""A Hugging Face Hub on 127.0.0.1 that speaks what the real client asks for, and can misbehave.

Repositories are branches of commits in memory. Files of `LARGE` bytes or more are kept as the
real Hub keeps them: the answer redirects to another host, which serves ranges. `requests` holds
what was asked and how many bytes of bodies went out; `fail` and `drop` break coming answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub_answers import Handler
from tests.hub_state import HubServer
from tests.loopback import serving

__all__ = ["HubServer", "hub", "own_session", "running", "writer"]


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


@pytest.fixture
def writer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The same, and a token for it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return hub
