"""What terminals of all kinds are told of their width."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from randes_cli.cli import environment

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("kind", ["dumb", "xterm-256color"])
def test_a_dumb_terminal_is_as_wide_as_it_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((61, 20)))
    environment.prepare()
    assert Console(force_terminal=True, color_system=None).width == 61
    assert "COLUMNS" not in environment.GIVEN or environment.GIVEN["COLUMNS"] != "61"


def test_a_width_that_was_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.delenv("LINES", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((61, 20)))
    environment.prepare()
    assert Console(force_terminal=True).width == 50


def test_without_a_terminal_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> os.terminal_size:
        raise OSError

    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(os, "get_terminal_size", none)
    environment.prepare()
    assert not {"COLUMNS", "LINES"} & os.environ.keys()


@pytest.mark.parametrize("size", ["", "0", "-5", "80x24", "²", "100000", "9" * 5000])
def test_a_size_that_no_terminal_has_is_forgotten(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
    for name in names:
        monkeypatch.setenv(name, size)
    monkeypatch.setenv("TERM", "xterm")
    environment.prepare()
    assert not {*names} & os.environ.keys()
