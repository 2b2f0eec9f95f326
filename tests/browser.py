"""A headless Chromium driven over a pair of pipes: no library, no port, no network."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

#: Gives the two pipes the numbers that Chromium expects, 3 to read and 4 to write.
_LAUNCH = """
import os, sys
read, write = int(sys.argv[1]), int(sys.argv[2])
while read in (3, 4): read = os.dup(read)
while write in (3, 4): write = os.dup(write)
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """The browser's program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Page:
    """One tab. `events` collects what the browser tells: console lines, exceptions, requests."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._in, 2**16)
            if not data:
                raise RuntimeError("the browser has gone")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        made: dict[str, Any] = json.loads(message)
        return made

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def resize(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the window and the colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page and wait until it is complete."""
        self.call("Page.navigate", url=address)
        while self.run("document.readyState") != "complete" or self.run("location.href") == (
            "about:blank"
        ):
            time.sleep(0.01)

    def run(self, script: str) -> Any:
        """The value of a script."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def point(self, selector: str, x: float, y: float) -> None:
        """Move the pointer to a place (shares of width and height) of an element."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f"return [b.left, b.top, b.width, b.height]; }})(document.querySelector({selector!r}))"
        )
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)

    def click(self, selector: str) -> None:
        """Click an element."""
        self.run(f"document.querySelector({selector!r}).click()")

    def screenshot(self) -> bytes:
        """A PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def complaints(self) -> list[str]:
        """Console lines, exceptions and requests other than for the page itself."""
        self.run("0")
        found = []
        for event in self.events:
            method, body = event.get("method", ""), event.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(f"{method}: {json.dumps(body)[:300]}")
            if method == "Network.requestWillBeSent":
                address = body["request"]["url"]
                if not address.startswith(("file:", "data:")):
                    found.append(f"request: {address}")
        return found


@contextlib.contextmanager
def browser(program: str) -> Iterator[Page]:
    """A fresh browser with an empty profile, and its one page."""
    read_there, write_here = os.pipe()
    read_here, write_there = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [program, *_OPTIONS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(read_there), str(write_there), *words],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        try:
            yield Page(write_here, read_here)
        finally:
            process.terminate()
            process.wait()
            os.close(write_here)
            os.close(read_here)


@pytest.fixture(scope="module")
def tab() -> Iterator[Page | None]:
    """A page of a headless Chromium; None, with a warning, where there is no Chromium."""
    program = chromium()
    if program is None:
        warnings.warn("no chromium program: pages are checked as text only", stacklevel=1)
        yield None
        return
    with browser(program) as page:
        yield page
