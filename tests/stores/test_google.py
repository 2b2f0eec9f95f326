"""Banks in Google's store, as an emulator of it answers: the bytes of local work."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from randes_cli import BankLocked, HubError, TaskInput, UsageError, add, pack, verify
from tests.checkpoints import save_family
from tests.google_server import Google

ROUND = Path(__file__).parents[2] / "benchmarks" / "stores.py"


def test_every_command_gives_the_bytes_of_work_here(google: Google) -> None:
    told: list[str] = []
    runpy.run_path(str(ROUND))["go_round"]("gs://bucket/trial", (1_000_000,), told.append)
    assert [" files as here" in line for line in told] == [True]
    assert google.wanted


@pytest.fixture
def inputs(google: Google) -> list[TaskInput]:
    """A base here and two fine-tunes of it."""
    save_family(Path(), {"a.weight": [600, 512], "norm": [128]}, ["a", "b"])
    return [TaskInput(name, f"{name}.safetensors") for name in ("a", "b")]


def test_an_edit_replaces_what_it_has_read_in_parts(
    google: Google, inputs: list[TaskInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.stores.puts._PART", 2**18)
    for out in ("gs://bucket/x.randes", "x.randes"):
        pack("base.safetensors", inputs[:1], out)
        add(out, inputs[1:])
    assert google.get("x.randes") == Path("x.randes").read_bytes()
    assert google.wanted[0] == "0" and int(google.wanted[1]) > 0


@pytest.mark.parametrize("edits", [True, False])
def test_a_writer_who_comes_at_the_last_moment_is_not_overwritten(
    google: Google, inputs: list[TaskInput], edits: bool
) -> None:
    bank = "gs://bucket/x.randes"
    if edits:
        pack("base.safetensors", inputs[:1], bank)
    google.meanwhile = lambda: google.put("x.randes", b"another's")
    with pytest.raises(BankLocked if edits else UsageError, match=r"^gs://bucket/x.randes: "):
        if edits:
            add(bank, inputs[1:])
        else:
            pack("base.safetensors", inputs[:1], bank)
    assert google.get("x.randes") == b"another's"


def test_a_put_whose_answer_was_lost_is_known_again(
    google: Google, inputs: list[TaskInput]
) -> None:
    pack("base.safetensors", inputs[:1], "x.randes")
    google.meanwhile = lambda: google.put("x.randes", Path("x.randes").read_bytes())
    pack("base.safetensors", inputs[:1], "gs://bucket/x.randes")
    assert verify("gs://bucket/x.randes").sound


@pytest.mark.parametrize("status", [401, 403])
def test_a_store_that_refuses_is_told_from_one_that_fails(
    google: Google, inputs: list[TaskInput], status: int
) -> None:
    google.status = status
    with pytest.raises(HubError, match=r"refused it \(.*as wanted|401.*gcloud auth") as error:
        pack("base.safetensors", inputs[:1], "gs://bucket/x.randes")
    assert "upload" not in str(error.value)
