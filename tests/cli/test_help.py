"""The help: panels in the order in which people ask, and words that stay whole."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from randes_cli.cli.app import COMMANDS
from randes_cli.specs import DEVICES, PRESETS, Rest, Shuffle, Signs
from tests.cli.conftest import Result

#: Words that a user copies from a help; none may be broken.
CHOICES = {
    "pack": [
        *PRESETS,
        *(one.value for kind in (Shuffle, Signs, Rest) for one in kind),
        *DEVICES,
        "reference",
        "embed",
        "--trust-remote-code-files",
    ],
    "unpack": [*DEVICES, "--trust-remote-code-files", "bfloat16", "--max-shard-size"],
    "inspect": ["index", "quality", "energy", "size", "name", "layer"],
    "plot": ["cosine", "layers", "distribution", "size", "lambda"],
    "tune": ["FIRST:LAST:STEP"],
    "seal": ["--in-place"],
}


@pytest.fixture
def shown(
    randes: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], str]:
    """The help of a command at a width, as lines without frames."""

    def show(command: str, width: int) -> str:
        monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
        found = randes(command, "--help")
        assert found.code == 0
        assert max(map(len, found.out.splitlines())) <= width
        return found.out

    return show


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_choice_is_broken_inside_a_word(
    command: str, width: int, shown: Callable[[str, int], str]
) -> None:
    text = shown(command, width)
    assert "…" not in text.replace(".pt …", "")
    for word in CHOICES.get(command, []):
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), word


def test_options_stand_in_panels_from_what_goes_in_to_how_it_speaks(
    shown: Callable[[str, int], str],
) -> None:
    text = shown("pack", 80)
    panels = ["What goes in", "How it is made", "How it runs", "How it speaks"]
    places = [text.index(f"─ {name} ─") for name in panels]
    assert places == sorted(places)
    parts = dict(zip(panels, re.split("|".join(panels), text)[1:], strict=True))
    options = {name: set(re.findall(r"--[a-z-]+", part)) for name, part in parts.items()}
    assert {"--from", "--allow-pickle", "--adapters"} <= options["What goes in"]
    assert {"--transform", "--bits", "--groups", "--seed"} <= options["How it is made"]
    assert {"--threads", "--device", "--dry-run", "--force"} <= options["How it runs"]
    assert {"--json", "--quiet", "--help"} <= options["How it speaks"]


@pytest.mark.parametrize("command", ["unpack", "add", "seal", "tune", "evaluate"])
def test_long_commands_end_with_how_they_run_and_speak(
    command: str, shown: Callable[[str, int], str]
) -> None:
    text = shown(command, 80)
    assert 0 < text.index("─ How it runs ─") < text.index("─ How it speaks ─")
    assert text.index("--help") > text.index("─ How it speaks ─")
    assert "<bool>" not in text and "<str>" not in text
