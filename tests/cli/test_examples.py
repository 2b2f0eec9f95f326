"""The command lines that helps end with run as they are printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from randes_cli.cli.app import COMMANDS
from randes_cli.cli.examples import EXAMPLES, WORDS
from tests.cli.conftest import Result

Run = Callable[..., Result]
#: These talk to others; their words are taken, and what follows is tested elsewhere.
TALKING = ("push", "serve")


@pytest.fixture
def here(family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which there is what the examples name, but for what they write."""
    monkeypatch.chdir(family)
    for number, letter in enumerate("abc", 1):
        shutil.copy(f"{letter}.safetensors", f"ft{number}.safetensors")
    for name in ("base", "ft1", "ft2"):
        Path(f"{name}-folder").mkdir()
        shutil.copy(f"{name}.safetensors", f"{name}-folder/model.safetensors")
    Path("score.py").write_text("print(0.5)\n")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in TALKING])
def test_an_example_runs_as_it_is_printed(name: str, here: None, randes: Run) -> None:
    for line in EXAMPLES[name]:
        for left in ("b.randes", "small.randes", "cut.randes"):
            Path(left).unlink(missing_ok=True)
        if name != "pack":
            made = randes(*shlex.split(EXAMPLES["pack"][0])[1:], "-q")
            assert made.code == 0, made.err
        done = randes(*shlex.split(line)[1:])
        assert done.code == 0, (line, done.err)


def test_every_command_has_an_example_and_shows_it(
    randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 100)
    for name, lines in EXAMPLES.items():
        shown = randes(name, "--help").out
        assert all(line in shown and len(line) <= 98 for line in lines), name
    assert " ".join(WORDS.split()) in " ".join(randes("--help").out.split())
