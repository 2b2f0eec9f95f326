"""Banks in Google's store, as an emulator of it answers: the bytes of local work."""

from __future__ import annotations

import logging
import runpy
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

ROUND = Path(__file__).parents[2] / "benchmarks" / "stores.py"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server on a free port. (The emulator's own answers one call at a time.)"""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)
    storage = Storage(use_memory_fs=True)
    storage.create_bucket("bucket", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RequestHandler, storage))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    yield "gs://bucket/trial"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_command_gives_the_bytes_of_work_here(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROUND))["go_round"](bucket, (1_000_000,), told.append)
    assert [" files as here" in line for line in told] == [True]
