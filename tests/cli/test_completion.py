"""What shells are offered, through the variables by which their functions ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

#: Answers for each environment in turn, with what had to be loaded for them.
PROGRAM = """
import contextlib, io, json, os, sys
from randes_cli.cli.main import run
told = []
for extra in json.loads(sys.argv.pop()):
    os.environ.update(extra)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run([])
    told.append([code, out.getvalue(), [*{"numpy", "torch", "huggingface_hub"} & {*sys.modules}]])
print(json.dumps(told))
"""
#: How each shell asks for the last word of a line.
SHELLS = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    },
}


def asked(shell: str, lines: Iterable[str], folder: Path) -> dict[str, set[str]]:
    """The words that a shell is offered for the end of each line, without what explains them."""
    lines, kind = [*lines], {"_RANDES_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([SHELLS[shell](line) for line in lines])],
        cwd=folder,
        env={**os.environ, **kind},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    offered = {}
    for line, (code, out, heavy) in zip(lines, json.loads(done.stdout), strict=True):
        assert (code, heavy) == (0, []), line
        offered[line] = _words(shell, out.strip())
    return offered


def _words(shell: str, out: str) -> set[str]:
    if shell == "zsh":
        inner = out.removeprefix("_arguments '*: :((").removesuffix("))'")
        return {part.split('"')[1] for part in inner.splitlines() if part.startswith('"')}
    return {part.split("\t")[0] for part in out.splitlines()}


def test_lines_are_offered_what_fits(bank: Path, family: Path) -> None:
    offered = {
        "randes unpack bank.randes ": {"a", "b"},
        "randes unpack bank.randes b ": {"a"},
        "randes unpack bank.randes --task ": {"a", "b"},
        "randes remove bank.randes -t b": {"b"},
        "randes inspect bank.randes --task ": {"a", "b"},
        "randes verify bank.randes --against ": {"a=", "b="},
        "randes add bank.randes c.safetensors@": {"c.safetensors@0"},
        "randes pack --transform s": {"srsf", "s", "shift"},
        "randes pack --share ": {"1/2", "1/4", "1/8"},
        "randes unpack ": {"bank.randes"},
        "randes add ./ba": {"./bank.randes"},
        "randes unpack a": set(),
        "randes unpack missing.randes --task ": set(),
        "randes unpack a.safetensors --task ": set(),
    }
    assert asked("bash", offered, family) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_is_offered_commands_options_and_tasks(
    shell: str, bank: Path, family: Path
) -> None:
    offered = {
        "randes un": {"unpack"},
        "randes unpack bank.randes ": {"a", "b"},
        "randes pack --saf": {"--safetensors-only"},
    }
    assert asked(shell, offered, family) == offered


def test_damaged_banks_offer_nothing(bank: Path, family: Path) -> None:
    whole = bank.read_bytes()
    for number, data in enumerate((b"", whole[:7], b"\xff" * 64, whole[:200], whole[:-100])):
        (family / f"{number}.randes").write_bytes(data)
    lines = [f"randes unpack {number}.randes --task " for number in range(5)]
    assert asked("bash", lines, family)[lines[3]] == set()


def test_bash_completes_with_the_function_that_is_shown(
    bank: Path, family: Path, randes: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = randes("--show-completion", "bash")
    assert shown.code == 0
    (family / "bin").mkdir()
    program = family / "bin" / "randes"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m randes_cli "$@"\n')
    program.chmod(0o755)
    script = (
        f"{shown.out}\nCOMP_WORDS=(randes unpack bank.randes --task '')\nCOMP_CWORD=4\n"
        '_randes_completion randes\necho "${COMPREPLY[*]}"\n'
    )
    env = {**os.environ, "PATH": f"{family / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=family, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["a", "b"]


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/randes.sh"),
        ("zsh", ".zfunc/_randes"),
        ("fish", ".config/fish/completions/randes.fish"),
    ],
)
def test_completion_is_installed_at_home(
    shell: str,
    file: str,
    tmp_path: Path,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = randes("--install-completion", shell)
    assert (done.code, f"{shell} completion installed" in done.out) == (0, True)
    assert "_RANDES_COMPLETE" in (tmp_path / file).read_text()
