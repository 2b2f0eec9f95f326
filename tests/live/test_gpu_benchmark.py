"""`benchmarks/gpu.py` does on a device what it does here: all but its clock is tried."""

from __future__ import annotations

import runpy
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scripts import ROOT


@pytest.fixture(autouse=True)
def _scripts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_it_says_that_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")
    assert capsys.readouterr().out == "no CUDA device here: nothing was run\n"


def test_it_times_every_part_that_has_kernels_and_keeps_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figures, steps = import_module("gpu_figures"), import_module("gpu_steps")
    forms, swaps = import_module("gpu_forms"), import_module("gpu_swaps")
    ticks = iter([10.0, 12.0, 14.0, 10.0, 12.0, *[1.0] * 99])

    def timed(run: Callable[[], Any], *_: Any) -> float:
        run()
        return next(ticks)

    for module in (steps, swaps):
        monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(steps, "FORMS", ((2, 1, 1),))
    monkeypatch.setattr(steps, "ROWS", (16,))
    monkeypatch.setattr(swaps, "BITS", (16, 2))
    monkeypatch.setattr("randes_cli.live.stack.kernels_for", lambda device: True)
    monkeypatch.setenv(figures.FILE, str(tmp_path / "figures"))
    bases = import_module("gpu_data").weights([(8, 64)], "cpu", torch.float16)
    steps.time_steps(bases, "cpu")
    ticks = iter([10.0, 14.0, 12.0, *[1.0] * 99])
    swaps.time_swaps(bases, "cpu")
    monkeypatch.setattr(forms, "SHAPES", ((16, 2, 2, 1, 1.4),))
    some = list(forms.forms_of(16, 2, 1, 2))[:3]
    monkeypatch.setattr(forms, "forms_of", lambda *_: some)
    forms.time_forms(bases, "cpu", timed)
    told = capsys.readouterr().out
    assert told.count(" ok") == 3 and "WRONG" not in told and "Error" not in told
    lines = figures.table(tmp_path / "figures").splitlines()
    assert [line.split() for line in lines if not line.endswith("–")][1:] == [
        ["16", "rows,", "2", "bits", "×", "1", "group", "1.41", "1.20", "met"],
        ["swap,", "16", "bits", "1.30", "1.40", "missed"],
        ["swap,", "2", "bits", "1.30", "1.20", "met"],
    ]
    assert len(lines) == 1 + 2 * len(figures.FORMS) + len(figures.BITS)


def test_a_part_that_fails_or_hangs_is_told_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gpu = import_module("gpu")
    script = tmp_path / "benchmarks" / "one.py"
    script.parent.mkdir()
    script.write_text(
        "import os, subprocess, sys, time\n"
        "part = sys.argv[2]\n"
        "print(part, os.environ['TRITON_INTERPRET'], os.environ['PYTHONPATH'].split(':'))\n"
        "if part == 'hangs':\n"
        "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "sys.exit(part == 'fails')\n"
    )
    parts = [
        gpu.Part(name, script, name, 2.0 if name == "hangs" else 90.0)
        for name in ("fails", "hangs", "works")
    ]
    monkeypatch.setattr(gpu, "parts_of", lambda given: parts)
    monkeypatch.setenv("PYTHONPATH", "/kept")
    assert gpu.run_all(Namespace(device="cpu", layers=1)) == ["fails", "hangs"]
    told = capfd.readouterr().out
    assert f"works 1 {[str(tmp_path / 'src'), '/kept']}" in told
    assert told.count(" s, FAILED (1)") == 1 and "s, FAILED: not done in 2 s\n" in told
    assert told.rstrip().endswith(" s, ok")


def test_what_decides_most_comes_first() -> None:
    gpu = import_module("gpu")
    given = Namespace(device="cuda", beside=Path("old"), command=True)
    parts = gpu.parts_of(given)
    assert [part.name for part in parts[:4]] == [
        "check steps",
        "steps",
        "steps of old",
        "check swaps",
    ]
    assert parts[2].script == Path("old").resolve() / "benchmarks" / "gpu.py"
    assert all(part.script.is_file() for part in parts if part.name != "steps of old")
    assert parts[-1].name == "commands" and sum(part.most for part in parts[:5]) < gpu.MOST_SECONDS
