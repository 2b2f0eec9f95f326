"""Stores that fail, are not there, and secrets in their addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import (
    pack,
)
from randes_cli.cli.main import run
from tests.store_server import SECRET, Store
from tests.stores.bucket import inputs

# Failures


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (0, "reset")]
)
def test_a_store_that_stumbles_is_asked_again(far: Store, status: int, code: str) -> None:
    pack("base.safetensors", inputs("", "cars"), "x.randes")
    for part, method in (("cars", "GET"), ("base", "HEAD"), ("y.randes", "PUT")):
        far.fail(part, status, code, times=2, method=method)
    at = far.at() + "/"
    pack(at + "base.safetensors", inputs(at, "cars"), at + "y.randes")
    assert far.get("y.randes") == Path("x.randes").read_bytes()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (500, "InternalError", "the store answered InternalError"),
        (403, "ExpiredToken", "the store refused it (ExpiredToken"),
        (403, "AccessDenied", "the store refused it (AccessDenied"),
        (0, "reset", "the connection to the store failed or was dropped"),
    ],
)
@pytest.mark.parametrize(("part", "method"), [("cars", "GET"), ("x.randes", "PUT")])
def test_a_store_that_fails_for_good_ends_in_one_sentence_and_the_old_bank(
    far: Store,
    capsys: pytest.CaptureFixture[str],
    part: str,
    method: str,
    status: int,
    code: str,
    said: str,
) -> None:
    at = far.at() + "/"
    pack(at + "base.safetensors", inputs(at, "dtd"), at + "x.randes")
    before = far.get("x.randes")
    far.fail(part, status, code, method=method)
    assert run(["add", at + "x.randes", at + "cars.safetensors", "-q", "--debug"]) == 9
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last and last.startswith(f"randes: {at}")
    assert far.get("x.randes") == before
    assert not far.uploads()


def test_what_is_not_there_is_missing(far: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["inspect", far.at("none.randes")],
        ["inspect", "s3://no-such-bucket/x.randes"],
        ["pack", far.at("none.safetensors"), "cars.safetensors", "-o", "x.randes"],
        ["pack", "base.safetensors", far.at("none"), "-o", "x.randes"],
    ):
        assert run([*words, "-q"]) == 5
        assert capsys.readouterr().err.strip().endswith(": not found")


# Secrets


def test_no_secret_of_an_address_is_recorded_or_printed(
    far: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = [far.signed(f"{name}.safetensors") for name in ("base", "cars")]
    pack("base.safetensors", inputs("", "cars"), far.at("x.randes"))
    assert run(["pack", signed[0], f"cars={signed[1]}", "-o", "x.randes"]) == 0
    assert run(["inspect", "x.randes", "--manifest"]) == 0
    assert run(["remove", "x.randes", "-t", "cars", "--debug"]) != 0
    assert run(["pack", *signed, "-o", "j.randes", "--json", "--dry-run"]) == 0
    assert run(["diff", signed[0], "cars.safetensors", "--json"]) == 1
    assert run(["verify", "x.randes", "--against", f"cars={signed[1]}", "--json"]) == 0
    assert run(["verify", far.signed("x.randes")]) == 0
    assert run(["inspect", signed[0], "--debug"]) == 3
    assert run(["inspect", far.signed("none.randes"), "--debug"]) == 5
    login = f"s3://AKIA:{SECRET}@{far.bucket}/x.randes"
    for words in (["inspect", login], ["pack", "base.safetensors", login, "-o", "y.randes"]):
        assert run([*words, "--debug"]) == 2
    said = "".join(capsys.readouterr()) + Path("x.randes").read_bytes().decode("latin-1")
    assert "Signature" not in said and SECRET not in said and "AKIA" not in said
    assert f"{far.url}/{far.bucket}/cars.safetensors" in said
