"""What shells are offered, through the variables by which their functions ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

PROGRAM = (
    "import sys; from randes_cli.cli.main import run; code = run([]); "
    "print(*({'numpy', 'torch', 'huggingface_hub'} & set(sys.modules)), file=sys.stderr); "
    "sys.exit(code)"
)
#: How each shell asks for the last word of a line.
SHELLS = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    },
}


def asked(shell: str, line: str, folder: Path) -> set[str]:
    """The words that a shell is offered for the end of a line, without what explains them."""
    extra = {"_RANDES_COMPLETE": f"complete_{shell}", **SHELLS[shell](line)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "", "heavy modules were loaded, or something was said"
    assert done.returncode == 0
    out = done.stdout.strip()
    if shell == "zsh":
        inner = out.removeprefix("_arguments '*: :((").removesuffix("))'")
        return {part.split('"')[1] for part in inner.splitlines() if part.startswith('"')}
    return {part.split("\t")[0] for part in out.splitlines()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("randes unpack bank.randes ", {"a", "b"}),
        ("randes unpack bank.randes b ", {"a"}),
        ("randes unpack bank.randes --task ", {"a", "b"}),
        ("randes remove bank.randes -t b", {"b"}),
        ("randes inspect bank.randes --task ", {"a", "b"}),
        ("randes verify bank.randes --against ", {"a=", "b="}),
        ("randes add bank.randes c.safetensors@", {"c.safetensors@0"}),
        ("randes pack --transform s", {"srsf", "s", "shift"}),
        ("randes pack --share ", {"1/2", "1/4", "1/8"}),
        ("randes unpack ", {"bank.randes"}),
        ("randes add ./ba", {"./bank.randes"}),
        ("randes unpack a", set()),
        ("randes unpack missing.randes --task ", set()),
        ("randes unpack a.safetensors --task ", set()),
    ],
)
def test_a_line_is_offered_what_fits(
    line: str, offered: set[str], bank: Path, family: Path
) -> None:
    assert asked("bash", line, family) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_is_offered_commands_options_and_tasks(
    shell: str, bank: Path, family: Path
) -> None:
    assert asked(shell, "randes un", family) == {"unpack"}
    assert asked(shell, "randes unpack bank.randes ", family) == {"a", "b"}
    assert asked(shell, "randes pack --saf", family) == {"--safetensors-only"}


def test_damaged_banks_offer_nothing(bank: Path, family: Path) -> None:
    whole = bank.read_bytes()
    for number, data in enumerate((b"", whole[:7], b"\xff" * 64, whole[:200], whole[:-100])):
        (family / f"{number}.randes").write_bytes(data)
        asked("bash", f"randes unpack {number}.randes --task ", family)
    assert asked("bash", "randes unpack 3.randes --task ", family) == set()


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
