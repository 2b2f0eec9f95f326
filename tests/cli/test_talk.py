"""What the command line says, and what it keeps to itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from randes_cli.cli.main import run
from randes_cli.cli.output import Clock
from randes_cli.views.text import decimal
from tests.life.models import make_bank, source, write_family


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("whole", "single"))


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    found = capsys.readouterr()
    assert "Usage: randes" in found.out and "evaluate" in found.out
    assert found.err == ""


def test_quiet_commands_that_write_say_nothing(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bank.parent
    for words in (
        ["pack", source(folder, "base"), source(folder, "whole"), "-o", str(folder / "n.randes")],
        ["add", str(bank), source(folder, "half")],
        ["remove", str(bank), "--task", "half"],
        ["tune", str(bank), "--evaluate", "echo 1 # {checkpoint}", "--grid", "1"],
        ["unpack", str(bank), "--task", "whole", "-o", str(folder / "whole.st")],
        ["verify", str(bank)],
        ["seal", str(bank), "--bits", "2", "--in-place"],
    ):
        assert run([*words, "--quiet"]) == 0
        assert capsys.readouterr() == ("", ""), words


def test_a_device_that_is_not_there_is_refused_in_one_line(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for device, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        words = [source(bank.parent, name) for name in ("base", "half")]
        if not there:
            out = str(bank.parent / "n.randes")
            assert run(["pack", *words, "-o", out, "--device", device]) == 2
            found = capsys.readouterr().err
            assert found.startswith(f"randes: --device {device}: ") and found.count("\n") == 1


def test_numbers_that_round_to_zero_are_left_out_or_have_no_sign() -> None:
    assert [decimal(value, 2) for value in (-0.001, -0.006, 0.0)] == ["0.00", "-0.01", "0.00"]
    said = Clock(json=True).sentence(0, 10)
    assert "0.0 s" not in said.replace("than 0.1 s", "") and "0.00" not in said


def test_peak_memory_is_that_of_the_process_itself() -> None:
    code = (
        "import subprocess, sys; block = bytearray(300_000_000); "
        "print(subprocess.run([sys.executable, '-c', "
        "'from randes_cli.cli.output import Clock; "
        'print(Clock(json=True).facts(0, 0)["peak_memory_bytes"])\'], '
        "capture_output=True, text=True, check=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 200_000_000


def test_help_does_not_load_what_only_work_needs() -> None:
    code = (
        "import sys; from randes_cli.cli.main import run; run(['pack', '--help']); "
        "print([m for m in ('torch', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
