"""Patterns of adapters' configurations match as Python's own, and always end."""

from __future__ import annotations

import re
import time

import pytest

from randes_cli.files.lora.patterns import matches_end, parsed

NAMES = ["q_proj", "model.layers.0.self_attn.q_proj", "model.layers.12.mlp.down_proj", "a.b", "aab"]
PATTERNS = [
    "q_proj", "self_attn.q_proj", "^model.layers.0.self_attn.q_proj", r"layers\.(0|1|2)\..*q_proj",
    r"layers\.\d+\.mlp\.(up|down)_proj", "layers.[0-9]+.*", ".*q_proj", "[^.]+", "[^a]b", "a*b?",
    r"(a|aa)b", r"\w+\.b", r"\D{3}", "a{2}b", "(?:a.)?b", "", "b$", "q_proj|b", ".*?proj",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_pythons_own_matches(pattern: str) -> None:
    for name in NAMES:
        expected = re.match(rf"(.*\.)?({pattern})$", name) is not None
        assert matches_end(pattern, name) is expected, name


@pytest.mark.parametrize(
    "pattern",
    ["(a|a)*", "(a|aa)+", "(a?){60}a{60}", "a?" * 60 + "a" * 60, ".*" * 200 + "x", "(a+)+"],
)
def test_a_pattern_that_could_take_for_ever_ends(pattern: str) -> None:
    started = time.process_time()
    try:
        matches_end(pattern, "a" * 200 + "b")
    except ValueError as error:
        assert "too long" in str(error)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "pattern",
    ["(", "a" * 2000, "(?=a)b", r"(a)\1", "(" * 900 + ")" * 900, "(?i)A", "(?i:A)b", "(?-i:a)b"],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        parsed(pattern)
