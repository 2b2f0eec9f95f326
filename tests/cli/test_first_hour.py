"""What a stranger reads in the first hour: whole words, sizes and commands to copy."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fcntl import ioctl
from html import unescape
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import inspect, pack
from randes_cli.files.location import RemotePath
from randes_cli.files.stores.store import translate
from randes_cli.stats.alternatives import sealing
from randes_cli.stats.curves import Curves
from randes_cli.views import panels
from randes_cli.views.answers import answer
from randes_cli.views.figures import subplots
from tests.cli.conftest import Result

Run = Callable[..., Result]


def test_an_error_breaks_between_words_where_a_terminal_ends_its_lines(bank: Path) -> None:
    words = ["unpack", bank.name, "catz", "-o", "out"]
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    command = [sys.executable, "-m", "randes_cli", *words]
    assert subprocess.run(command, stderr=theirs, cwd=bank.parent, check=False).returncode == 5
    told = os.read(ours, 4000)
    os.close(theirs)
    os.close(ours)
    lines = told.decode().replace("\r", "").splitlines()
    alone = subprocess.run(command, capture_output=True, text=True, cwd=bank.parent, check=False)
    assert " ".join(lines) == alone.stderr.strip() and len(lines) > 1
    assert all(len(line) <= 30 for line in lines)


def test_an_edit_says_what_the_bank_comes_to_and_each_task_keeps(
    bank: Path, family: Path, randes: Run
) -> None:
    dry = randes("add", bank, f"more={family / 'b.safetensors'}", "--dry-run")
    before = bank.stat().st_size
    told = randes("add", bank, f"more={family / 'b.safetensors'}")
    count = len(inspect(bank).report.tasks)
    assert f"bank.randes: would take {before / 1000:.2f} kB → " in dry.err
    assert f" → {bank.stat().st_size / 1000:.2f} kB, {count} tasks" in told.err
    shown = re.findall(r"^\S+ +\S+ +\d\.\d+ +[\d–]+ %$", told.out, re.M)
    assert len(shown) == count


@pytest.fixture
def roomy(tmp_path: Path) -> Path:
    """A bank that is smaller when it is sealed, and keeps as much."""
    random = np.random.default_rng(0)
    base = {f"h.{n}.w": random.standard_normal((64, 512), np.float32) for n in range(8)}
    save_file(base, tmp_path / "base.safetensors")
    for name in "ab":
        moved = {k: v + 0.1 * random.standard_normal(v.shape, np.float32) for k, v in base.items()}
        save_file(moved, tmp_path / f"{name}.safetensors")
    tasks = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    pack(tmp_path / "base.safetensors", tasks, tmp_path / "my bank.randes")
    return tmp_path / "my bank.randes"


def test_a_report_of_a_bank_on_the_hub_has_commands_that_name_it_whole(roomy: Path) -> None:
    report = replace(inspect(roomy).report, bank="lab/tasks:my.randes")
    commands = [step.command for step in answer(report, Curves({}, measured=True)).steps]
    assert commands[-1] == "randes unpack lab/tasks:my.randes a -o a"
    assert commands[0].startswith("randes seal lab/tasks:my.randes ")
    assert re.search(r" -o my-\dbit\.randes$", commands[0])


def test_the_report_has_the_command_that_seals_and_what_it_saves(roomy: Path, randes: Run) -> None:
    found = sealing(inspect(roomy).report.alternatives)
    assert found is not None
    assert randes("report", roomy, "-o", roomy.with_suffix(".html")).code == 0
    page = unescape(roomy.with_suffix(".html").read_text())
    command = re.search(r"<code[^>]*>(randes seal 'my bank.randes' [^<]*)</code>", page)
    assert command is not None and "base, not" not in page
    assert f"Save {(found.here.bank_bytes - found.best.bank_bytes) / 1e3:.2f} kB" in page
    bits, small = shlex.split(command[1])[4], roomy.parent / "small.randes"
    assert randes("seal", roomy, "--bits", bits, "-o", small).code == 0
    assert abs(small.stat().st_size / found.best.bank_bytes - 1) < 0.01


def test_both_charts_of_a_group_name_its_rows(bank: Path) -> None:
    rows = inspect(bank).report.rows
    for draw in (panels.cosines, panels.overlaps):
        _, (axis,) = subplots(4, 3)
        draw(axis, rows)
        assert [text.get_text() for text in axis.get_yticklabels()] == [row.name for row in rows]


def test_a_link_in_the_bank_s_folder_is_recorded_as_it_is_called_there(
    bank: Path, family: Path, tmp_path: Path, randes: Run
) -> None:
    for name in ("base", "b"):
        (tmp_path / f"my-{name}.safetensors").symlink_to(family / f"{name}.safetensors")
    out, task = tmp_path / "linked.randes", tmp_path / "my-b.safetensors"
    assert randes("pack", tmp_path / "my-base.safetensors", task, "-o", out).code == 0
    recipe = randes("inspect", out, "--recipe").out
    assert re.search(r"base: (.*/)?my-base.safetensors\n", recipe)
    assert re.search(r"my-b: (.*/)?my-b.safetensors\n", recipe)
    assert randes("remove", out, "my-b", "-q").code == 0


def test_a_store_without_an_account_says_where_to_log_in() -> None:
    found = translate(ValueError("unable to connect to account"), RemotePath("az://b/x"))
    assert "the store refused it (ValueError: unable" in str(found) and "az login" in str(found)


def test_of_many_tensors_verify_shows_those_that_come_back_worst(
    tmp_path: Path, randes: Run
) -> None:
    random = np.random.default_rng(0)
    base = {f"h.{n}.w": random.standard_normal((16, 16), np.float32) for n in range(30)}
    save_file(base, tmp_path / "base.safetensors")
    moved = {k: v + 0.1 * random.standard_normal(v.shape, np.float32) for k, v in base.items()}
    for name in "ab":
        save_file(moved, tmp_path / f"{name}.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in ("base", "a", "b")]
    assert randes("pack", *paths, "-o", tmp_path / "x.randes").code == 0
    words = ("verify", tmp_path / "x.randes", "--against", f"a={paths[1]}")
    cosines = {one["name"]: one["cosine"] for one in _checked(randes(*words, "--json").out)}
    lines = randes(*words).out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("h.")]
    assert shown == sorted(cosines, key=cosines.__getitem__)[:20]
    assert "… 10 more, which come back better (--json lists all)" in lines


def _checked(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["against"][0]["tensors"]
    return found
