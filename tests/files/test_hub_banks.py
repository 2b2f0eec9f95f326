"""Banks on the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from randes_cli.build.pack import pack
from randes_cli.errors import CheckpointError, HubError
from randes_cli.files.hub.ref import HubRef
from randes_cli.files.hub.repository import fetch, open_hub_bank, open_remote_bank
from randes_cli.files.json_text import encode_header
from randes_cli.ops.describe import describe
from randes_cli.reports import TaskSummary
from randes_cli.specs import TaskInput
from tests.files.hub_models import ID, REF, WHOLE, weights

if TYPE_CHECKING:
    from tests.hub_server import HubServer

# Banks


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of two tasks whose superposition is much larger than what describes it."""
    for name, seed in (("base", 0), ("one", 1), ("two", 2)):
        (tmp_path / f"{name}.safetensors").write_bytes(weights("a", "b", rows=2000, seed=seed))
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in ("one", "two")]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "two.randes")
    return tmp_path / "two.randes"


def _unjudged(task: TaskSummary) -> TaskSummary:
    """Without what is said of how long its delta is: a base elsewhere is not sampled."""
    bare = replace(task, length=None, verdict="", expected=None)
    return replace(bare, kept=None, kept_low=None, kept_high=None)


def test_a_bank_is_described_from_a_few_ranges(hub: HubServer, bank: Path) -> None:
    from randes_cli.files.bank.file import BankFile

    commit = hub.add(ID, {"two.randes": bank.read_bytes(), "README.md": b"x"})
    with open_remote_bank(REF) as remote, BankFile(bank) as local:
        far, near = describe(remote), describe(local)
    assert [task.length for task in far.tasks] == [None, None]
    assert [_unjudged(task) for task in far.tasks] == [_unjudged(task) for task in near.tasks]
    assert far.cosine_during == near.cosine_during
    assert far.bank == f"{ID}:two.randes"
    asked = [request for request in hub.requests if "/resolve/" in request.path]
    assert all(commit in request.path and request.range for request in asked)
    assert len(asked) <= 7
    assert hub.body_bytes < 100_000 < bank.stat().st_size / 10


def test_a_bank_on_the_hub_refuses_to_be_edited(
    hub: HubServer, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from randes_cli.cli.main import run

    hub.add(ID, {"two.randes": bank.read_bytes()})
    sealing = ["seal", ID, "--bits", "4", "--in-place"]
    for words in (["add", ID, "x"], ["remove", ID, "-t", "one"], sealing):
        assert run(words) == 2
        assert "push it again" in capsys.readouterr().err


def test_a_fetched_bank_is_the_same_file(hub: HubServer, bank: Path) -> None:
    commit = hub.add(ID, {"sub/two.randes": bank.read_bytes()})
    model = open_hub_bank(HubRef(ID, None, "sub"))
    assert fetch(model).read_bytes() == bank.read_bytes()
    assert model.source == f"{ID}@{commit}:sub/two.randes"


def test_a_repository_with_no_or_several_banks_asks_for_a_name(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    with pytest.raises(HubError, match="has no bank"):
        open_hub_bank(REF)
    hub.add(ID, {"a.randes": b"x", "b.randes": b"x"})
    with pytest.raises(HubError, match=r"has several banks \(a.randes, b.randes\); name one"):
        open_hub_bank(REF)
    assert open_hub_bank(HubRef(ID, None, "b.randes")).found.weights == ("b.randes",)


def test_a_checkpoint_is_not_taken_for_a_bank(hub: HubServer) -> None:
    hub.add(ID, {"x.randes": encode_header([], {}) + b""})
    with pytest.raises(CheckpointError, match="a checkpoint, not a bank"):
        open_remote_bank(REF)
