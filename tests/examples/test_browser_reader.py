"""The JavaScript reader: every vector under Node, and a bank by range in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.browser import browser, chromium
from tests.checkpoints import Packer, perturbed, random_state, retrieve
from tests.loopback import answering

ROOT = Path(__file__).parents[2]
READER = ROOT / "examples" / "browser"
VERSIONS = sorted(path.name for path in (ROOT / "docs" / "vectors").iterdir())


class Ranged(SimpleHTTPRequestHandler):
    """A folder by GET with a range; counts the bytes that it sends of banks."""

    sent = 0

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        Ranged.sent += last + 1 - first

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The page and whatever a test puts beside it, on a port of this machine."""
    for path in READER.iterdir():
        shutil.copy(path, tmp_path / path.name)
    handler = partial(Ranged, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running, answering(running) as address:
        yield address


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_in_the_vectors_comes_back_under_node(version: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js here")
    words = [node, "check.mjs", str(ROOT / "docs" / "vectors" / version)]
    done = subprocess.run(words, check=False, cwd=READER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_opens_a_bank_by_range_and_retrieves_a_tensor(server: str, tmp_path: Path) -> None:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here")
    base = random_state({f"layers.{k}.weight": (64, 64) for k in range(8)})
    packer = Packer(tmp_path)
    bank = packer.pack(base, {f"t{k}": perturbed(base, seed=k) for k in range(3)})
    Ranged.sent = 0
    with browser(program) as page:
        page.open(f"{server}/index.html")
        page.run(f"document.getElementById('url').value = '{server}/bank.randes'")
        page.click("#open button")
        _wait(page.run, "3 tasks")
        page.run("document.getElementById('task').value = 't1'")
        page.run("document.getElementById('tensor').value = 'layers.5.weight'")
        page.click("#choose button")
        _wait(page.run, "layers.5.weight of t1")
        shown = page.run("document.getElementById('values').textContent")
    values = retrieve(bank, "t1")["layers.5.weight"].reshape(-1)[:12].tolist()
    assert shown.startswith("F32 [64,64]\n")
    assert np.allclose([float(word) for word in shown.split()[2:14]], values, rtol=1e-5)
    assert 0 < Ranged.sent < bank.stat().st_size / 2


def _wait(run: object, words: str) -> None:
    """Until the page's status has these words; a test that hangs ends with what it says."""
    assert callable(run)
    said = ""
    for _ in range(1000):
        said = run("document.getElementById('status').textContent")
        if words in said:
            return
        time.sleep(0.02)
    raise AssertionError(said)
