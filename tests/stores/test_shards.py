"""Banks in shards in a bucket: the index comes last, and names what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import (
    HubError,
    PackOptions,
    TaskInput,
    UsageError,
    add,
    convert,
    pack,
    remove,
    unpack,
    verify,
)
from randes_cli.cli.main import run
from randes_cli.files.bank.stored_shards import StoredShards
from randes_cli.files.location import RemotePath
from tests.checkpoints import save_family
from tests.store_server import Store

SHAPES = {"a.weight": [200, 128], "b.weight": [300, 128], "norm": [128]}
OPTIONS = PackOptions(max_shard_size=100_000)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a base and three fine-tunes, which is the working folder, too."""
    save_family(tmp_path, SHAPES, ["cars", "dtd", "svhn"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inputs(at: str, *names: str) -> list[TaskInput]:
    return [TaskInput(name, f"{at}{name}.safetensors") for name in names]


def pack_both(store: Store, *names: str) -> None:
    for at in ("", store.at() + "/"):
        pack(at + "base.safetensors", inputs(at, *names), at + "x.randes", OPTIONS)


def files(bank: str = "x.randes") -> dict[str, bytes]:
    """The files of a bank here, by name."""
    shards = sorted(Path(f"{bank}.d").iterdir())
    return {bank: Path(bank).read_bytes(), **{str(path): path.read_bytes() for path in shards}}


def stored(store: Store, bank: str = "x.randes") -> dict[str, bytes]:
    names = [name for name in store.names() if name.startswith(bank)]
    return {name: store.get(name) for name in names}


def test_index_and_shards_are_those_of_a_bank_here(store: Store, here: Path) -> None:
    store.put_folder(here)
    pack_both(store, "cars", "dtd")
    assert stored(store) == files() and len(files()) > 3
    asked = [one.path for one in store.requests if one.method == "PUT"]
    assert asked[-1].endswith("/x.randes")
    assert verify(store.at("x.randes")).sound
    unpack("x.randes", "cars", "near.safetensors")
    unpack(store.at("x.randes"), "cars", "far.safetensors")
    assert Path("near.safetensors").read_bytes() == Path("far.safetensors").read_bytes()


def test_edits_send_what_changed_and_leave_the_rest_to_prune(store: Store, here: Path) -> None:
    store.put_folder(here)
    pack_both(store, "cars", "dtd")
    for at in ("", store.at() + "/"):
        store.forget()
        add(at + "x.randes", inputs(at, "svhn"))
    base = {name for name in files() if b"base/" in files()[name][:4000] and name != "x.randes"}
    sent = {one.path.partition("/")[2].partition("/")[2] for one in store.asked("", "PUT")}
    assert base and not base & sent
    assert files().items() < stored(store).items()
    assert run(["verify", store.at("x.randes"), "--prune", "--older-than", "0", "-q"]) == 0
    assert stored(store) == files()
    for at in ("", store.at() + "/"):
        remove(at + "x.randes", ["svhn"])
    assert verify(store.at("x.randes")).unnamed
    assert run(["verify", store.at("x.randes"), "--prune", "--older-than", "0", "-q"]) == 0
    assert stored(store) == files()


def test_what_another_may_be_writing_is_not_pruned(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_folder(here)
    pack_both(store, "cars", "dtd")
    before = stored(store)
    packed = store.at("x.randes")
    name = next(name for name in before if name != "x.randes")
    for letter, hours in ("a", 25), ("b", 23):
        store.put(f"x.randes.d/{letter * 32}.safetensors", before[name])
        store.age(f"x.randes.d/{letter * 32}.safetensors", hours)
    assert "2 files beside the index" in said("verify", packed, capsys)
    told = said("verify", packed, capsys, "--prune")
    assert "1 file beside the index that it does not name: too young to go" in told
    young = f"x.randes.d/{'b' * 32}.safetensors"
    assert stored(store) == {**before, young: before[name]}
    assert not verify(packed, prune=True, older_than=22).unnamed
    assert stored(store) == before


def said(verb: str, bank: str, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run([verb, bank, *words]) == 0
    return "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"older_than": 3}, "--older-than serves --prune"),
        ({"older_than": 3, "prune": True}, "the bank's lock tells"),
        ({"older_than": -1, "prune": True}, "between 0 and"),
    ],
)
def test_an_age_that_serves_nothing_is_refused(here: Path, words: dict[str, int], why: str) -> None:
    pack("base.safetensors", inputs("", "cars"), "y.randes", OPTIONS)
    with pytest.raises(UsageError, match=why):
        verify("y.randes", **words)  # type: ignore[arg-type]


def test_a_shard_that_is_old_is_sent_again_so_that_nobody_prunes_it_meanwhile(
    store: Store, here: Path
) -> None:
    store.put_folder(here)
    pack_both(store, "cars")
    shards = sorted(name for name in stored(store) if name != "x.randes")
    store.age(shards[0], 20)
    store.forget()
    at = store.at() + "/"
    pack(at + "base.safetensors", inputs(at, "cars"), at + "x.randes", OPTIONS, force=True)
    sent = {one.path.split("/", 2)[2] for one in store.asked("", "PUT")}
    assert sent == {shards[0], "x.randes"}


def test_a_bank_is_converted_on_its_way(store: Store, here: Path) -> None:
    store.put_folder(here)
    pack_both(store, "cars")
    convert(store.at("x.randes"), "one.randes", single_file=True)
    convert("one.randes", store.at("y.randes"), max_shard_size=100_000)
    Path("x.randes").rename("y.randes")
    Path("x.randes.d").rename("y.randes.d")
    assert stored(store, "y.randes") == files("y.randes")


@pytest.mark.parametrize("part", ["x.randes.d", "x.randes"])
def test_an_upload_that_fails_leaves_the_old_bank_and_shards_that_the_next_goes_on_with(
    store: Store, here: Path, part: str
) -> None:
    store.put_folder(here)
    pack_both(store, "cars", "dtd")
    before = stored(store)
    store.fail(part, 500, "InternalError", method="PUT")
    if part == "x.randes":
        store.faults[0].part = "/x.randes?"
    with pytest.raises(HubError, match="the store answered InternalError"):
        add(store.at("x.randes"), inputs(store.at() + "/", "svhn"))
    left = stored(store)
    assert before.items() <= left.items()
    assert (before == left) == (part == "x.randes.d")
    store.forget()
    add(store.at("x.randes"), inputs(store.at() + "/", "svhn"))
    sent = {one.path.partition("/")[2].partition("/")[2] for one in store.asked("", "PUT")}
    assert "x.randes" in sent and not sent & left.keys() - {"x.randes"}


def test_a_writer_that_fails_takes_no_shard_that_another_counts_on(
    store: Store, tmp_path: Path
) -> None:
    bank = RemotePath(store.at("x.randes"))
    first, second = (StoredShards(bank, tmp_path / name) for name in ("a.randes", "b.randes"))
    for writer in (first, second):
        new = writer.create(100)
        writer.publish(new, "0" * 16)
    first.discard([])
    assert len(store.asked("safetensors", "PUT")) == 1
    assert [len(data) for data in stored(store).values()] == [100]


def test_a_shard_that_is_missing_is_named(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_folder(here)
    pack_both(store, "cars")
    name = next(name for name in files() if name != "x.randes" and b"base/" in files()[name][:4000])
    store.delete(name)
    assert run(["unpack", store.at("x.randes"), "-t", "cars", "-o", "o.safetensors"]) == 6
    assert name in capsys.readouterr().err
    assert run(["verify", store.at("x.randes")]) == 6
    assert Path(name).name in "".join(capsys.readouterr())
