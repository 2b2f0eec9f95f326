"""The page at /: answers of several models side by side, in a real browser where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from randes_cli.server.guard import Limits
from randes_cli.server.service import Service, Serving
from tests.axe import violations
from tests.browser import Page
from tests.server.service import Alone, http, serving, until
from tests.server.test_encoders import classifiers

EVIL = "</script><script>window.owned=1</script><img src=x onerror='window.owned=1'>\"'&"


def is_open(tab: Page, service: Service) -> None:
    tab.events.clear()
    tab.open(f"{service.address}/")
    until(lambda: tab.run("document.getElementById('ask').hidden") is False)


def status(tab: Page) -> str:
    return str(tab.run("document.getElementById('status').textContent"))


def key(tab: Page, name: str, code: int, *, text: str = "", ctrl: bool = False) -> None:
    """Press a key as a person does."""
    press: dict[str, Any] = {"key": name, "windowsVirtualKeyCode": code, "modifiers": 2 * ctrl}
    tab.call("Input.dispatchKeyEvent", type="keyDown", text=text, **press)
    tab.call("Input.dispatchKeyEvent", type="keyUp", **press)


def reach(tab: Page, script: str) -> None:
    """Press Tab until the element that has the focus (`e`) is the one that is meant."""
    for _ in range(60):
        if tab.run(f"(e => {script})(document.activeElement)"):
            return
        key(tab, "Tab", 9)
    raise AssertionError(f"Tab leads to none with {script}")


def complaints(tab: Page, service: Service) -> list[str]:
    ours = f"request: {service.address}/"
    return [said for said in tab.complaints() if not said.startswith(ours)]


def cards(tab: Page) -> dict[str, str]:
    found: dict[str, str] = tab.run(
        "Object.fromEntries(Array.from(document.querySelectorAll('article'), one => "
        "[one.querySelector('h3').textContent, one.querySelector('.said').textContent]))"
    )
    return found


def test_the_page_holds_all_that_it_needs_and_lets_nothing_else_in(service: Service) -> None:
    found = http.get(f"{service.address}/")
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert "://" not in found.text and "innerHTML" not in found.text
    assert " style=" not in found.text and " onclick" not in found.text
    assert all(name not in found.text for name in service.engine.current.models if "task" in name)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_answers_come_side_by_side_and_nobody_is_kept_out(
    service: Service, alone: Alone, tab: Page | None, width: int, dark: bool
) -> None:
    if tab is None:
        return
    tab.resize(width, 900, dark=dark, phone=width < 600)
    is_open(tab, service)
    assert violations(tab) == []
    tab.run("document.getElementById('most').value = 12")
    tab.run("document.getElementById('text').value = 'page'")
    tab.click("#go")
    until(lambda: "together" in status(tab))
    wanted = {name: alone.chat(name, "page", 12) for name in ("base", "task-0", "task-1", "task-2")}
    assert cards(tab) == wanted
    assert "tokens/s" in tab.run("document.querySelector('article .foot').textContent")
    assert "of its accuracy" in tab.run("document.querySelectorAll('article')[1].textContent")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert violations(tab) == []
    assert complaints(tab, service) == []


def test_the_keyboard_is_enough(service: Service, alone: Alone, tab: Page | None) -> None:
    if tab is None:
        return
    tab.resize(1280, 900)
    is_open(tab, service)
    reach(tab, "e.id === 'none'")
    key(tab, "Enter", 13, text="\r")
    reach(tab, "e.closest('label')?.dataset.name === 'task-5'")
    key(tab, " ", 32, text=" ")
    reach(tab, "e.id === 'text'")
    tab.call("Input.insertText", text="keys")
    reach(tab, "e.tagName === 'SUMMARY'")
    key(tab, "Enter", 13, text="\r")
    reach(tab, "e.id === 'most'")
    tab.run("document.activeElement.select()")
    tab.call("Input.insertText", text="7")
    reach(tab, "e.id === 'go'")
    key(tab, "Enter", 13, text="\r")
    until(lambda: "together" in status(tab))
    assert cards(tab) == {"task-5": alone.chat("task-5", "keys", 7)}
    tab.run("document.getElementById('text').focus()")
    key(tab, "Enter", 13, ctrl=True)
    until(lambda: "together" in status(tab))
    reach(tab, "e.textContent === 'Copy as curl'")


def test_the_request_that_is_copied_gives_the_same_answer(
    service: Service, tab: Page | None
) -> None:
    curl = shutil.which("curl")
    if tab is None or curl is None:
        return
    is_open(tab, service)
    tab.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => "
        "{ window.copied = text; }}})"
    )
    tab.run("document.getElementById('text').value = \"it's $HOME `here`\"")
    tab.click("#go")
    until(lambda: "together" in status(tab))
    tab.click("article:last-child .foot button")
    until(lambda: tab.run("window.copied"))
    command = tab.run("window.copied").replace('"stream":true', '"stream":false')
    command = command.replace(',"stream_options":{"include_usage":true}', "")
    made = subprocess.run(["bash", "-c", command], capture_output=True, check=True, text=True)
    said = json.loads(made.stdout)["choices"][0]["message"]["content"]
    assert said == cards(tab)["task-2"]


def test_hostile_names_labels_and_answers_are_words_in_the_text(
    bank: Path, tmp_path: Path, tab: Page | None
) -> None:
    if tab is None:
        return
    with serving(bank, tasks=("task-0",)) as service:
        edition = service.engine.current
        served = replace(edition.models["task-0"], name=EVIL)
        service.engine.current = replace(edition, models={EVIL: served})
        is_open(tab, service)
        tab.run(f"document.getElementById('text').value = {EVIL!r}")
        tab.click("#go")
        until(lambda: "together" in status(tab))
        assert list(cards(tab)) == [EVIL]
        assert tab.run("window.owned") is None
        assert tab.run("document.querySelectorAll('img').length") == 0
    with serving(classifiers(tmp_path)) as service:
        is_open(tab, service)
        assert tab.run("document.getElementById('what').textContent") == "Text to classify"
        tab.run("document.getElementById('text').value = 'words'")
        tab.click("#go")
        until(lambda: "answers in" in status(tab))
        assert "<b>spam</b>" in tab.run("document.getElementById('answers').textContent")
        assert tab.run("document.querySelectorAll('article .classes').length") == 4
        assert violations(tab) == []
        assert complaints(tab, service) == []


def test_a_key_is_asked_for_and_kept(bank: Path, tab: Page | None) -> None:
    if tab is None:
        return
    how = Serving(port=0, limits=Limits(b"open sesame"))
    with serving(bank, how=how, tasks=("task-0",)) as service:
        tab.open(f"{service.address}/")
        until(lambda: tab.run("document.getElementById('lock').hidden") is False)
        assert violations(tab) == []
        for word, good in (("wrong", False), ("open sesame", True)):
            tab.run(f"document.getElementById('key').value = {word!r}")
            tab.click("#lock button")
            until(lambda good=good: tab.run("document.getElementById('ask').hidden") is not good)
            until(lambda: tab.run("document.getElementById('lead').textContent"))
        assert "2 models answer here" in tab.run("document.getElementById('lead').textContent")
