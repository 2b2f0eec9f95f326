"""axe-core in a page of a headless Chromium: what keeps people out of it."""

from __future__ import annotations

import json
from pathlib import Path

import axe_playwright_python

from tests.browser import Page

SCRIPT = Path(axe_playwright_python.__file__).with_name("axe.min.js")


def violations(page: Page) -> list[str]:
    """The rules that the open page breaks, each with the first elements that break it."""
    page.run(f"{SCRIPT.read_text('utf-8')}\n;0")
    page.call(
        "Runtime.evaluate",
        expression="axe.run().then(found => { window.found = JSON.stringify(found.violations.map("
        "one => [one.id, ...one.nodes.slice(0, 3).map(n => n.html.slice(0, 200))].join(' '))) })",
        awaitPromise=True,
    )
    made: list[str] = json.loads(page.run("window.found"))
    return made
