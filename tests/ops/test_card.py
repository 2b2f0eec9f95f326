"""The card of a bank: its metadata is the Hub's, its commands work as printed."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

from randes_cli.build.pack import pack
from randes_cli.cli.main import run
from randes_cli.core.prediction.verdict import sentences
from randes_cli.errors import HubError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.card import _in_card, model_card
from randes_cli.ops.describe import BankReport, describe
from randes_cli.ops.push import push
from randes_cli.specs import TaskInput

if TYPE_CHECKING:
    from tests.hub_server import HubServer

ID = "maker/bank"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def folder(place: Path, values: np.ndarray, licence: str = "") -> str:
    """A model's folder, with a card where a licence is named."""
    place.mkdir()
    save_file({"a": values}, place / "model.safetensors")
    (place / "config.json").write_text("{}")
    if licence:
        (place / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    return str(place)


def made(place: Path, *licences: str) -> Path:
    """A bank of as many tasks, each with its own card."""
    source = np.random.default_rng(0)
    base = source.standard_normal((100, 64)).astype(np.float32)
    tasks = []
    for number, licence in enumerate(licences):
        moved = base + 0.01 * source.standard_normal(base.shape).astype(np.float32)
        tasks.append(TaskInput(f"t{number}", folder(place / f"t{number}", moved, licence)))
    pack(folder(place / "base", base), tasks, place / "two.randes")
    return place / "two.randes"


class One(torch.nn.Module):
    """A model of the bank's one tensor, which it answers with."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(100, 64), requires_grad=False)

    def forward(self) -> torch.Tensor:
        return self.a.clone()


def metadata(card: str) -> dict[str, Any]:
    """What the Hub's client reads of a card."""
    data: Any = ModelCard(card).data
    return dict(data.to_dict())


def report_of(bank: Path) -> BankReport:
    with BankFile(bank) as file:
        return describe(file)


def test_the_hubs_client_finds_the_metadata_valid(writer: HubServer, tmp_path: Path) -> None:
    found = replace(report_of(made(tmp_path, "mit", "mit")), base_source=f"org/base@{COMMIT}")
    card = ModelCard(model_card(found, repo=ID, file="two.randes", license="mit"))
    card.validate(repo_type="model")
    data = metadata(str(card))
    assert (data["license"], data["base_model"]) == ("mit", "org/base")
    assert (data["base_model_relation"], data["library_name"]) == ("finetune", "randes")
    factors = model_card(replace(found, base_storage="zero"), repo=ID, file="x.randes")
    assert metadata(factors)["base_model_relation"] == "adapter"


@pytest.mark.parametrize("revision", [None, "trial"])
def test_every_command_and_snippet_of_the_card_works_as_printed(
    writer: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    bank = made(tmp_path, "mit", "mit")
    push(bank, ID, revision=revision)
    card = writer.files(ID, revision or "main")["README.md"].decode()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shell, *python = re.findall(r"```(?:sh|python)\n(.*?)```", card, re.S)
    install, *commands = shell.strip().splitlines()
    assert install == "pip install randes-cli" and len(commands) == 3
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0, command
    assert set(load_file("t0/model.safetensors")) == {"a"} and Path("models/t1").is_dir()
    found: dict[str, Any] = {"model": One(), "batch": {}}
    exec(python[0], found)
    assert set(found["state_dict"]) == {"a"}
    exec(python[1], found)
    assert torch.equal(found["answer"], found["state_dict"]["a"])


def test_the_card_says_what_to_expect_and_what_was_measured(tmp_path: Path) -> None:
    report = report_of(made(tmp_path, "mit", "mit"))
    plain = model_card(report, repo=ID, file="two.randes")
    assert all(f"- {sentence}" in plain for sentence in sentences(report.tasks))
    assert "| keeps |" in plain and "| measured |" not in plain
    live = f", {report.bits} bits, seed"
    sealed = model_card(replace(report, sealed={0: 2}), repo=ID, file="two.randes", shards=True)
    assert live in plain and live not in sealed
    assert "import hf_hub_download" in plain and "hf_hub_download" not in sealed
    nothing = replace(report, tasks=(), details=())
    assert "\nNo tasks.\n" in model_card(nothing, repo=ID, file="two.randes")
    curve = ((0.5, 0.25), (report.tasks[0].coefficient, 0.875))
    details = (replace(report.details[0], tuning=curve), *report.details[1:])
    tuned = model_card(replace(report, details=details), repo=ID, file="two.randes")
    row = next(line for line in tuned.splitlines() if line.startswith("| t0 "))
    assert "| measured |" in tuned and "| 0.875 |" in row


@pytest.mark.parametrize(
    ("licences", "asked", "on_hub", "found"),
    [
        (("mit", "mit"), None, None, "mit"),
        (("mit", "", " "), None, "apache-2.0", "mit"),
        (("mit", "apache-2.0"), None, "mit", None),
        (("", ""), None, "apache-2.0", "apache-2.0"),
        (("", ""), None, ["mit", "apache-2.0"], None),
        (("mit", "mit"), "openrail", None, "openrail"),
    ],
)
def test_the_licence_is_the_one_that_was_asked_for_or_that_all_cards_name(
    writer: HubServer,
    tmp_path: Path,
    licences: tuple[str, ...],
    asked: str | None,
    on_hub: str | list[str] | None,
    found: str | None,
) -> None:
    values = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)
    save_file({"a": values}, tmp_path / "model.safetensors")
    writer.add("org/base", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    writer.cards["org/base"] = {"license": on_hub} if on_hub else {}
    tasks = []
    for number, licence in enumerate(licences):
        place = folder(tmp_path / f"t{number}", values + np.float32(0.01 * number), licence)
        tasks.append(TaskInput(f"t{number}", place))
    pack("org/base", tasks, tmp_path / "two.randes")
    assert push(tmp_path / "two.randes", ID, license=asked).license == found
    assert metadata(writer.files(ID)["README.md"].decode()).get("license") == found


def test_banks_of_an_owner_stand_in_a_collection(writer: HubServer, tmp_path: Path) -> None:
    bank = made(tmp_path, "mit", "mit")
    first = push(bank, ID, collection="Our banks")
    again = push(bank, ID, collection="Our banks")
    assert first.collection is not None
    other = push(bank, "maker/other", collection=first.collection.split("/collections/")[1])
    assert first.collection == again.collection == other.collection
    (slug, items), *more = writer.collections.items()
    assert more == [] and first.collection == f"{writer.url}/collections/{slug}"
    assert [item["id"] for item in items] == [ID, "maker/other"]
    assert items[0]["note"]["text"].startswith("2 tasks; both tasks keep ")
    with pytest.raises(HubError):
        push(bank, ID, collection="maker/none-0123")


def test_a_card_of_a_million_numbers_takes_no_time() -> None:
    started = time.process_time()
    assert _in_card(f"---\nlicense: mit\nx: 1{':1' * 500_000}\n---\n") is None
    assert _in_card(f"---\nlicense: mit\n---\n{'x' * 10**6}") == "mit"
    for wrong in ("x" * 65, "mït", '"m\\x7fit"'):
        assert _in_card(f"---\nlicense: {wrong}\n---\n") is None
    assert time.process_time() - started < 5
