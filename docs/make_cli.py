"""Writes docs/cli.md from the command line's own --help. `make docs` runs it; a test checks it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")


def help_text(*command: str) -> str:
    """The --help of a command, as plain text of 100 columns."""
    shown = subprocess.run(
        [sys.executable, "-m", "randes_cli", *command, "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={
            "TERMINAL_WIDTH": "100",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PATH": "",
            "COLUMNS": "100",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONPATH": ":".join(sys.path),
        },
    ).stdout
    return "\n".join(line.rstrip() for line in shown.strip().splitlines())


def commands(root: str) -> list[str]:
    """The commands that the root's --help lists."""
    return re.findall(r"^│ ([a-z]+)\s{2,}\S", root, flags=re.MULTILINE)


def page() -> str:
    """The whole document."""
    root = help_text()
    parts = [
        "# Command line\n",
        "Made by `make docs` from `--help`; do not edit.\n",
        f"```text\n{root}\n```\n",
    ]
    for name in commands(root):
        parts.append(f"## randes {name}\n\n```text\n{help_text(name)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
