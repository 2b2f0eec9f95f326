"""A system without what Windows lacks: the same bytes, without locks or positioned calls."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mypy

import randes_cli
from tests.life.models import write_family

#: Takes names away before anything is imported, as another system lacks them.
_WITHOUT = """
import mmap, os, signal, sys
for module in ("fcntl", "resource"):
    sys.modules[module] = None
for module, names in %r.items():
    for name in names:
        delattr(sys.modules[module], name)
real_open = os.open
def opened(path, flags, mode=0o777, **more):
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(13, "a folder cannot be opened", str(path))
    return real_open(path, flags, mode, **more)
os.open = opened
"""
#: Python's own modules, as types know them on each system.
_STUBS = Path(mypy.__file__).parent / "typeshed" / "stdlib"


def _has(module: str, platform: str) -> set[str]:
    """The names that a module has on a platform."""
    found: set[str] = set()
    paths = (_STUBS / f"{module}.pyi", _STUBS / module / "__init__.pyi")
    sys_there = SimpleNamespace(platform=platform, version_info=sys.version_info)

    def read(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.If):
                test = compile(ast.Expression(node.test), module, "eval")
                read(node.body if eval(test, {"sys": sys_there}) else node.orelse)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
                read(node.body if isinstance(node, ast.ClassDef) and node.name == "Signals" else [])
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Assign):
                found.update(to.id for to in node.targets if isinstance(to, ast.Name))

    read(ast.parse(next(path for path in paths if path.exists()).read_text()).body)
    return found


def _lacking(module: str) -> list[str]:
    """The names of a module that the source says, and that Windows lacks."""
    source = "\n".join(path.read_text() for path in Path(randes_cli.__file__).parent.rglob("*.py"))
    return [
        name
        for name in sorted(_has(module, "linux") - _has(module, "win32"))
        if re.search(rf"\b{module}\.{name}\b|\"{name}\"", source)
    ]


_RUN = """
import sys
from randes_cli.files.local import disk
if sys.argv[1] == "without":
    disk._linux = lambda name, arguments: None
from randes_cli.cli.main import run
for words in (
    ["pack", "base.safetensors", "single.safetensors", "half.safetensors", "-o", "b.randes"],
    ["add", "b.randes", "whole.safetensors", "sparse.safetensors"],
    ["remove", "b.randes", "-t", "single"],
    ["pack", "base.safetensors", "whole.safetensors", "-o", "c.randes", "--bits", "2"],
    ["unpack", "b.randes", "-t", "half", "-t", "whole", "-o", "out"],
    ["verify", "b.randes"],
    ["verify", "c.randes", "--against", "whole=whole.safetensors"],
    ["seal", "b.randes", "--bits", "4", "-o", "s.randes"],
    ["report", "b.randes", "-o", "r.html"],
):
    if run(words):
        sys.exit(words)
"""


def _run(folder: Path, before: str, how: str) -> dict[str, bytes]:
    write_family(folder)
    done = subprocess.run(
        [sys.executable, "-c", before + _RUN, how],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_system_without_these_calls_writes_the_same_bytes(tmp_path: Path) -> None:
    """And leaves nothing behind: no lock, no temporary file."""
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    expected = _run(tmp_path / "with", "", "with")
    lacking = {module: _lacking(module) for module in ("mmap", "os", "signal")}
    assert "MAP_PRIVATE" in lacking["mmap"]
    assert "SIGALRM" in lacking["signal"]
    assert "pread" in lacking["os"]
    found = _run(tmp_path / "without", _WITHOUT % lacking, "without")
    assert set(found) == set(expected)
    assert found == expected
