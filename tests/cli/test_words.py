"""How names and numbers stand in what people read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.errors import UsageError
from randes_cli.specs import check_task_name
from tests.cli.conftest import Result

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("my task", "task name 'my task': .*, not a blank"),
        ("für", "task name 'für': .*, not 'ü'"),
        ("a\x1b[31m", r"task name 'a\\x1b\[31m': .*, not '\\x1b'"),
        ("a\u202eb", r"task name 'a\\u202eb'"),
        ("con", "not a device of Windows"),
        (".a", "not such a dot"),
        ("a" * 101, "not 101 characters"),
        ("", "not 0 characters"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        check_task_name(name)


def test_letters_of_all_languages_show_in_messages(bank: Path, randes: Run) -> None:
    assert "no task 'mädchen'" in randes("inspect", bank, "mädchen").err
    assert "no task 'a\\x1b\\u202e'" in randes("inspect", bank, "a\x1b\u202e").err


def test_a_sealed_bank_says_its_bits_and_no_other_and_one_bit_is_not_bits(
    bank: Path, randes: Run
) -> None:
    assert "16 bits" in randes("inspect", bank).out
    assert randes("seal", bank, "--bits", 1, "--in-place").code == 0
    assert randes("remove", bank, "a", "--forget").code == 0
    shown = randes("inspect", bank).out
    assert "sealed at 1 bit\n" in shown and "16 bits" not in shown
    assert "1 task left as interference" in shown
    page = bank.with_name("page.html")
    assert randes("report", bank, "-o", page).code == 0
    text = page.read_text("utf-8")
    assert "group 0 at 1 bit<" in text and "1 task left as interference" in text
    assert "16 bits" not in text


def test_one_screen_has_one_figure_of_what_a_bank_keeps(family: Path, randes: Run) -> None:
    base = load_file(family / "base.safetensors")
    random = np.random.default_rng(0)
    for name, scale in (("s", 0.001), ("m", 0.02), ("l", 0.06)):
        made = {
            key: value + scale * random.standard_normal(value.shape).astype("f4")
            if value.dtype.kind == "f"
            else value
            for key, value in base.items()
        }
        save_file(made, family / f"{name}.safetensors")
    tasks = [family / f"{name}.safetensors" for name in ("s", "m", "l", "a")]
    words = ["pack", family / "base.safetensors", *tasks, "-o", family / "x.randes"]
    packed = randes(*words, "--groups", 3).out
    for text in (packed, randes("inspect", family / "x.randes").out):
        told = re.search(r"predicted to keep ([\d.]+) % of the gain", text)
        row = re.search(r"^\*.*?([\d.]+) %", text, re.MULTILINE)
        assert told and row and told[1] == row[1], text
