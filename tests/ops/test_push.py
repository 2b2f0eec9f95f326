"""Banks onto the Hub, through the real client and a server on 127.0.0.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from randes_cli.build.convert import convert
from randes_cli.build.edit import remove
from randes_cli.build.pack import pack
from randes_cli.errors import (
    BankDamaged,
    CheckpointError,
    HubError,
    MismatchError,
    UsageError,
)
from randes_cli.files.bank.file import BankFile
from randes_cli.files.hub.ref import HubRef
from randes_cli.files.hub.repository import fetch, open_hub_bank, open_remote_bank
from randes_cli.ops.card import MARKER, model_card
from randes_cli.ops.describe import BankReport, describe
from randes_cli.ops.push import push
from randes_cli.specs import TaskInput

if TYPE_CHECKING:
    from tests.hub_server import HubServer

ID = "maker/bank"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of two tasks."""
    source = np.random.default_rng(0)
    base = source.standard_normal((100, 64)).astype(np.float32)
    save_file({"a": base}, tmp_path / "base.safetensors")
    for name in ("cars", "dtd"):
        moved = base + 0.01 * source.standard_normal((100, 64)).astype(np.float32)
        save_file({"a": moved}, tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in ("cars", "dtd")]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "two.randes")
    return tmp_path / "two.randes"


@pytest.fixture
def report(bank: Path) -> BankReport:
    """What `inspect` says of it."""
    with BankFile(bank) as file:
        return describe(file)


def front_matter(card: str) -> Any:
    """The metadata of a card as the Hub reads it."""
    _, text, rest = card.split("---\n", 2)
    assert MARKER in rest
    return yaml.safe_load(text)


# The card


def test_the_front_matter_is_yaml_and_names_a_base_of_the_hub(report: BankReport) -> None:
    found = replace(report, base_source=f"org/base@{COMMIT}:model.safetensors")
    assert front_matter(model_card(found, repo=ID, file="two.randes")) == {
        "library_name": "randes",
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "tags": ["randes", "model-compression", "multi-task"],
    }


@pytest.mark.parametrize("source", ["base.safetensors", "models/base", "", "a: b # `|\n---\n"])
def test_a_base_that_is_not_on_the_hub_is_no_base_model(report: BankReport, source: str) -> None:
    card = model_card(replace(report, base_source=source), repo=ID, file="two.randes")
    assert "base_model" not in front_matter(card)


def test_the_card_lists_every_task_with_its_prediction_and_how_to_get_it(
    report: BankReport,
) -> None:
    card = model_card(report, repo=ID, file="two.randes")
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith(("| cars", "| dtd"))]
    assert [row[:3] for row in rows] == [
        [f"| {task.name}", f"{task.predicted_cosine:.3f}", "1"] for task in report.tasks
    ]
    assert f"randes unpack {ID}:two.randes --task cars -o cars.safetensors" in card
    assert f'Bank.open(hf_hub_download("{ID}", "two.randes"))' in card
    assert "Retrieval is approximate" in card
    assert "`two-sided`" in card


def test_a_base_outside_the_bank_is_said(report: BankReport) -> None:
    inside = model_card(report, repo=ID, file="two.randes")
    outside = model_card(replace(report, base_storage="reference"), repo=ID, file="two.randes")
    assert "The base is **not** in the file" not in inside
    assert "The base is **not** in the file" in outside


def test_text_from_elsewhere_cannot_break_out_of_the_card(report: BankReport) -> None:
    hostile = replace(report.details[0], source="x` | y\n# heading")
    details = (hostile, *report.details[1:])
    card = model_card(replace(report, details=details), repo=ID, file="two.randes")
    assert "`x_ _ y_# heading` |" in card
    assert "\n# heading" not in card


# Pushing


def test_a_pushed_bank_comes_back_byte_by_byte_with_a_card(writer: HubServer, bank: Path) -> None:
    made = push(bank, ID)
    files = writer.files(ID)
    assert files["two.randes"] == bank.read_bytes()
    assert front_matter(files["README.md"].decode())["library_name"] == "randes"
    assert (made.repo, made.url, made.file) == (ID, f"{writer.url}/{ID}", "two.randes")
    assert (made.commit, made.bytes) == (writer.repos[ID].branches["main"], bank.stat().st_size)
    assert made.card
    with open_remote_bank(HubRef(ID)) as found:
        assert [task.name for task in found.manifest.tasks] == ["cars", "dtd"]
    assert fetch(open_hub_bank(HubRef(ID))).read_bytes() == bank.read_bytes()


def test_bank_and_card_arrive_in_one_commit(writer: HubServer, bank: Path) -> None:
    push(bank, ID)
    before, after = (set(files) for files in writer.repos[ID].commits.values())
    assert after - before == {"two.randes", "README.md"}


def test_a_second_push_replaces_the_card_that_the_first_wrote(
    writer: HubServer, bank: Path
) -> None:
    push(bank, ID)
    writer.add(ID, {"README.md": writer.files(ID)["README.md"] + b"old end\n"})
    assert push(bank, ID).card
    assert b"old end" not in writer.files(ID)["README.md"]


def test_somebody_elses_card_stays(writer: HubServer, bank: Path) -> None:
    writer.add(ID, {"README.md": b"# mine\n"})
    made = push(bank, ID)
    assert not made.card
    assert writer.files(ID)["README.md"] == b"# mine\n"
    assert writer.files(ID)["two.randes"] == bank.read_bytes()


def test_a_new_repository_is_private_on_request_and_an_old_one_stays_as_it_is(
    writer: HubServer, bank: Path
) -> None:
    push(bank, ID, private=True)
    assert writer.repos[ID].private
    push(bank, "maker/open")
    push(bank, "maker/open", private=True)
    assert not writer.repos["maker/open"].private


def test_a_branch_is_made_and_main_stays(writer: HubServer, bank: Path) -> None:
    writer.add(ID, {"x": b"y"})
    for _ in range(2):
        push(bank, ID, revision="trial", message="a try")
    assert set(writer.files(ID, "trial")) == {"x", "two.randes", "README.md"}
    assert set(writer.files(ID)) == {"x"}


def test_a_bank_under_another_name_gets_the_suffix_that_makes_it_found(
    writer: HubServer, bank: Path
) -> None:
    push(bank.rename(bank.with_name("two.bin")), ID)
    assert open_hub_bank(HubRef(ID)).found.weights == ("two.bin.randes",)


@pytest.mark.parametrize("repo", ["name", "org/name@rev", "org/name:x.randes", "datasets/o/n"])
def test_a_target_that_is_no_repository_is_refused(hub: HubServer, bank: Path, repo: str) -> None:
    with pytest.raises(UsageError):
        push(bank, repo)
    assert hub.requests == []


def test_what_is_no_bank_is_refused_before_anything_is_sent(hub: HubServer, bank: Path) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint, not a bank"):
        push(bank.with_name("base.safetensors"), ID)
    assert hub.requests == []


# Errors


def test_without_a_token_the_sentence_says_to_log_in(hub: HubServer, bank: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(HubError, match=r"maker/bank: nobody is logged in here; log in "):
            push(bank, ID, dry_run=dry_run)


@pytest.mark.parametrize(
    ("part", "status", "sentence"),
    [
        ("/preupload/", 429, "too many requests to"),
        ("/lfs/", 500, "answered 500"),
        ("/commit/", 403, "your token has no right to do this; see the settings of"),
    ],
)
def test_a_refusal_on_the_way_has_its_sentence_and_commits_nothing(
    writer: HubServer, bank: Path, part: str, status: int, sentence: str
) -> None:
    old = writer.add(ID, {"x": b"y"})
    writer.fail(part, status)
    with pytest.raises(HubError) as error:
        push(bank, ID)
    assert str(error.value).startswith(f"{ID}: ")
    assert sentence in str(error.value)
    assert writer.repos[ID].branches["main"] == old


def test_a_repository_that_may_not_be_made_is_not_made(writer: HubServer, bank: Path) -> None:
    writer.fail("/api/repos/create", 403)
    with pytest.raises(HubError, match=r"maker/bank: your token has no right to do this"):
        push(bank, ID)
    assert writer.repos == {}


def test_offline_nothing_can_be_pushed(
    hub: HubServer, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set; unset it to push"):
        push(bank, ID)


def test_a_bank_goes_in_shards_and_those_of_before_go_from_the_repository(
    writer: HubServer, bank: Path
) -> None:
    made = push(bank, ID, max_shard_size=20_000)
    here = {path.name for path in bank.parent.iterdir()}
    assert "two.randes.d" not in here and not any(name.startswith(".") for name in here)
    first = writer.files(ID)
    shards = {name for name in first if name.startswith("two.randes.d/")}
    assert made.files == 1 + len(shards) > 3
    remove(bank, ["dtd"])
    writer.add(ID, {"two.randes.d/notes.txt": b"mine"})
    again = push(bank, ID, max_shard_size=20_000)
    assert writer.files(ID)["two.randes.d/notes.txt"] == b"mine"
    second = {n for n in writer.files(ID) if n.startswith("two.randes.d/") and "notes" not in n}
    assert again.files == 1 + len(second) and second & shards and second - shards
    place = bank.parent / "down"
    for name, data in writer.files(ID).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    convert(place / "two.randes", place / "one.randes", single_file=True)
    assert (place / "one.randes").read_bytes() == bank.read_bytes()


@pytest.mark.parametrize("most", [None, 2**12])
def test_a_damaged_bank_is_not_sent(writer: HubServer, bank: Path, most: int | None) -> None:
    data = bytearray(bank.read_bytes())
    with BankFile(bank) as file:
        data[file.header.start("base/a") + 100] ^= 1
    bank.write_bytes(data)
    with pytest.raises(BankDamaged, match=r"two.randes: .*damaged"):
        push(bank, ID, max_shard_size=most)
    assert not writer.repos


@pytest.mark.parametrize("cut", [False, True])
def test_a_bank_that_changes_while_it_is_pushed_commits_nothing(
    writer: HubServer, bank: Path, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card would be of one bank, and the files, or some of them, of another."""
    from huggingface_hub import HfApi

    real, file = HfApi.create_repo, bank.with_name("pushed.randes")
    most = 2**12 if cut else None
    convert(bank, file, max_shard_size=most, single_file=not cut)

    def meanwhile(*given: Any, **more: Any) -> Any:
        remove(file, ["dtd"], checkpoints={"dtd": str(bank.parent / "dtd.safetensors")})
        return real(*given, **more)

    monkeypatch.setattr(HfApi, "create_repo", meanwhile)
    with pytest.raises(MismatchError, match="changed while it was pushed"):
        push(file, ID)
    assert "pushed.randes" not in writer.files(ID)
    monkeypatch.undo()
