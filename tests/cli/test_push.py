"""A bank goes to the Hub and is used from there, through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Result

if TYPE_CHECKING:
    from tests.hub_server import HubServer


def test_a_pushed_bank_is_inspected_and_unpacked_by_its_id(
    bank: Path,
    family: Path,
    hub: HubServer,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(family)
    pushed = randes("push", bank, "maker/bank", "--json")
    assert pushed.code == 0, pushed.err
    assert pushed.json["bytes"] == bank.stat().st_size

    there = randes("inspect", "maker/bank", "--json")
    assert [task["name"] for task in there.json["tasks"]] == ["a", "b"]
    here = randes("inspect", bank, "--json")
    for one, other in zip(there.json["tasks"], here.json["tasks"], strict=True):
        # A base elsewhere is not sampled for how long deltas are beside it.
        assert one["length"] is None and other["length"] > 0
        judged = ("length", "verdict", "expected")
        assert [v for k, v in one.items() if k not in judged] == [
            v for k, v in other.items() if k not in judged
        ]

    assert randes("unpack", "hf://maker/bank", "-t", "b", "-o", "remote.safetensors").code == 0
    assert randes("unpack", bank, "-t", "b", "-o", "local.safetensors").code == 0
    local = load_file("local.safetensors")
    for name, tensor in load_file("remote.safetensors").items():
        assert torch.equal(tensor, local[name])
    assert randes("verify", "maker/bank").code == 0


def test_a_repository_that_is_not_there_is_one_line(
    hub: HubServer, randes: Callable[..., Result]
) -> None:
    result = randes("inspect", "maker/none")
    assert result.code == 9
    assert len(result.err.strip().splitlines()) == 1


def test_push_says_where_it_went_and_what_the_card_lacks(
    bank: Path,
    hub: HubServer,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pushed = randes("push", bank, "maker/bank", "--collection", "Our banks")
    assert pushed.out.split() == [
        f"{hub.url}/maker/bank",
        f"{hub.url}/collections/maker/our-banks-0123456789ab",
    ]
    assert "say --license ID" in pushed.err
    licensed = randes("push", bank, "hf://maker/bank", "--license", "mit")
    assert (licensed.code, "license" in licensed.err) == (0, False)
    hub.add("maker/bank", {"README.md": b"# mine"})
    assert "own README stays as it was" in randes("push", bank, "maker/bank").err


def test_push_draws_no_bars_into_a_file(bank: Path, hub: HubServer, tmp_path: Path) -> None:
    own = {**os.environ, **hub.environment(tmp_path / "hf"), "HF_TOKEN": "hf_secret"}
    own.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
    words = ["push", str(bank), "maker/bank", "--license", "mit"]
    program = [sys.executable, "-m", "randes_cli", *words]
    done = subprocess.run(program, env=own, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{hub.url}/maker/bank\n", "")


def test_a_dry_run_says_what_push_would_do_and_sends_nothing(
    bank: Path,
    hub: HubServer,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = ("push", bank, "maker/bank", "--max-shard-size", "20kB", "--license", "mit")
    assert "log in first" in randes(*line, "--dry-run").err
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    dry = randes(*line, "--dry-run", "--json")
    said = randes(*line, "--dry-run")
    assert said.out == ""
    assert f"files to {hub.url}/maker/bank, which is made" in said.err
    assert hub.repos == {}
    assert {request.method for request in hub.requests} <= {"GET", "HEAD"}

    real = randes(*line, "--json").json
    assert dry.json == {**real, "commit": None, "dry_run": True}
    hub.add("maker/bank", {"README.md": b"mine"})
    before = hub.files("maker/bank")
    for more in ((), ("--revision", "trial")):
        again = randes(*line, *more, "--dry-run", "--json").json
        assert (again["new"], again["card"], again["license"]) == (False, False, None)
    assert hub.files("maker/bank") == before
    assert set(hub.repos["maker/bank"].branches) == {"main"}
