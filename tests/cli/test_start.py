"""What a command loads before it works, and that its arguments mean what typer says they mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from randes_cli.cli import app
from randes_cli.cli.light import LightCommand, LightGroup

LINES = (
    "inspect bank.randes",
    "inspect bank.randes --task cars --by layer --sort quality --full --json",
    "inspect bank.randes --against a=x --against b=y --threads 3",
    "pack base a=x b=y -o bank --bits 8 --seed 7 --groups 2 --force",
    "pack base a=x -o bank",
    "unpack bank --task a -o out --dtype float32",
    "add bank x -q",
    "remove bank --task a",
    "verify bank --quick",
    "seal bank --bits 2 -o out",
    "seal bank --bits -3 -o out --wait 2.50 --threads 0",
    "add bank x --wait 7 --threads 07",
    "unpack bank --lambda -0.125 -o out",
    "pack base a=x -o bank --seed 123456789012 --capacity 1",
    "serve bank --port 65535 --timeout 0.1",
)
WRONG = (
    "inspect",
    "inspect b --by colour",
    "pack b a -o o --threads -1",
    "pack b a -o o --seed x",
    "pack b a -o o --seed 1.5",
    "pack b a -o o --capacity 0",
    "add b a --wait 1e",
    "serve b --port 65536",
    "serve b --timeout 0.05",
)


def parsed(line: str) -> dict[str, Any]:
    """The values that a command line gives to its function."""
    group: Any = typer.main.get_command(app._app(line.split()))
    with group.make_context("randes", line.split()) as outer:
        _, command, rest = group.resolve_command(outer, line.split())
        return dict(command.make_context("randes", rest, parent=outer).params)


def both(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    """What becomes of a line, and what typer itself makes of it."""
    found: list[object] = []
    for command, group in ((LightCommand, LightGroup), (TyperCommand, TyperGroup)):
        monkeypatch.setattr(app, "LightCommand", command)
        monkeypatch.setattr(app, "LightGroup", group)
        try:
            found.append({name: (type(v), v) for name, v in parsed(line).items()})
        except Exception as error:
            found.append((type(error), getattr(error, "format_message", str)()))
    return found[0], found[1]


@pytest.mark.parametrize("line", LINES)
def test_values_that_are_not_checked_are_those_that_typer_gives(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = both(line, monkeypatch)
    assert isinstance(ours, dict)
    assert ours == theirs


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_refused_in_the_words_of_typer(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = both(line, monkeypatch)
    assert isinstance(ours, tuple)
    assert ours == theirs


#: What no command needs for files that are here: of these each takes a start's milliseconds.
HEAVY = {
    *("torch", "pydantic", "huggingface_hub", "fsspec", "rich.console", "numpy.ma", "tqdm"),
    *("concurrent.futures", "importlib.metadata", "logging", "socket", "statistics", "tempfile"),
    *("zipfile", "randes_cli.build.crew"),
    *("randes_cli.files.stores.s3", "randes_cli.files.hub.repository"),
}
#: Commands as one types them, by what each works with.
COMMANDS = {
    "ops.describe": "inspect {bank}",
    "ops.verify": "verify {bank} --threads 1",
    "read.unpack": "unpack {bank} a -o {folder}/back.safetensors",
    "build.seal.seal": "seal {bank} --bits 2 -o {folder}/sealed.randes",
    "build.edit": "remove {bank} b --forget --wait 1.5",
    "build.pack": "pack {folder}/base.safetensors c={folder}/c.safetensors -o {folder}/new.randes",
}


#: What else one of them has no use for.
IDLE = {
    "ops.verify": {"rich.text", "randes_cli.ops.measure", "randes_cli.read.retrieve"},
    "ops.describe": {"hashlib", "randes_cli.core.compiled.run", "randes_cli.core.compiled.back"},
    "build.seal.seal": {"hashlib", "randes_cli.build.draft"},
}


@pytest.mark.parametrize("module", COMMANDS)
def test_commands_load_only_what_they_work_with(module: str, bank: Path) -> None:
    code = (
        "import sys; from randes_cli.cli.main import run; code = run(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    words = COMMANDS[module].format(bank=bank, folder=bank.parent).split()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert f"randes_cli.{module}" in loaded
    assert sorted(loaded & (HEAVY | IDLE.get(module, set()))) == []
