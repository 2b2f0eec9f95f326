"""Banks in Azure's store, as a server of the tests answers for it: the bytes of local work."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from randes_cli import BankLocked, TaskInput, add, pack
from randes_cli.files.location import RemotePath
from randes_cli.files.stores import puts, store
from tests.azure_server import Azure
from tests.checkpoints import perturbed, random_state, save

ROUND = Path(__file__).parents[2] / "benchmarks" / "stores.py"


def test_every_command_gives_the_bytes_of_work_here(azure: Azure) -> None:
    told: list[str] = []
    runpy.run_path(str(ROUND))["go_round"]("az://bucket/trial", (1_000_000,), told.append)
    assert [" files as here" in line for line in told] == [True]
    assert azure.names() == []


def test_a_writer_who_comes_at_the_last_moment_is_not_overwritten(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = random_state({"a.weight": [60, 512], "norm": [128]})
    save(base, Path("base.safetensors"))
    save(perturbed(base, seed=1), Path("a.safetensors"))
    inputs = [TaskInput("a", "a.safetensors")]
    pack("base.safetensors", inputs, "az://bucket/x.randes")
    seen = store.look_up

    def meanwhile(place: RemotePath) -> Any:
        found = seen(place)
        azure.put("bucket/x.randes", b"another's")
        return found

    monkeypatch.setattr(puts, "look_up", meanwhile)
    with pytest.raises(BankLocked, match=r"^az://bucket/x.randes: another writer replaced it"):
        add("az://bucket/x.randes", [TaskInput("b", "a.safetensors")])
    assert azure.get("x.randes") == b"another's"
