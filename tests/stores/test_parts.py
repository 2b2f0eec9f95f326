"""An object of parts that several workers have sent: the store puts it together, whole or not."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from randes_cli import HubError, PackOptions, TaskInput, pack, verify
from randes_cli.errors import RandesError
from randes_cli.files.bank.shard_folder import NewShard
from randes_cli.files.bank.shards import shard_file
from randes_cli.files.bank.stored_shards import StoredShards
from randes_cli.files.location import RemotePath
from randes_cli.files.stores import parts
from randes_cli.files.stores.segments import Part, Segment, Sent
from tests.azure_server import Azure
from tests.checkpoints import perturbed, random_state, save
from tests.google_server import Google
from tests.store_server import Store

Server: TypeAlias = Store | Google | Azure


@pytest.fixture(params=["store", "google", "azure"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(parts, "_BLOCK", 2**20)
    monkeypatch.setattr(parts, "_COMPOSED", 4)
    made: Server = request.getfixturevalue(request.param)
    return made


def at(server: Server, name: str) -> RemotePath:
    if isinstance(server, Store):
        return RemotePath(server.at(name))
    return RemotePath(f"{'gs' if isinstance(server, Google) else 'az'}://bucket/{name}")


def left(folder: StoredShards, here: Path, start: int, data: bytes) -> Sent:
    here.write_bytes(data)
    there = folder.leave(NewShard(here, keep=False, there=True), Part("0123", start))
    assert isinstance(there, RemotePath) and not here.exists()
    return Sent(there, start, len(data))


def many(folder: StoredShards, here: Path) -> tuple[list[Segment], bytes]:
    """Parts, the last sent first and one twice, with something before, between and after them."""
    random, sent, start = np.random.default_rng(0), list[Sent](), 0
    sizes = (6_000_000, 5, 5_300_001, 12, 13, 14, 15)
    whole = {}
    for size in sizes:
        whole[start] = random.bytes(size)
        start += size
    left(folder, here, start - sizes[-1], whole[start - sizes[-1]])
    for at in reversed(whole):
        sent.insert(0, left(folder, here, at, whole[at]))
    segments: list[Segment] = [b"header", *sent[:2], b"", b"gap", *sent[2:], b"digests"]
    data = list(whole.values())
    return segments, b"".join([b"header", *data[:2], b"gap", *data[2:], b"digests"])


def test_parts_become_one_object_and_leave_nothing(server: Server, tmp_path: Path) -> None:
    folder = StoredShards(at(server, "x.randes"), tmp_path / "x.randes")
    segments, whole = many(folder, tmp_path / "part")
    assert "x.randes.d/digest.safetensors" not in server.names()
    sent = [one.place for one in segments if isinstance(one, Sent)]
    for place in sent:
        folder.hold(place)
    folder.join("digest", segments, len(whole))
    for place in sent:
        folder.release(place)
    assert server.names() == [f"x.randes.d/{shard_file('digest')}"]
    assert server.get(server.names()[0]) == whole
    assert parts.begun_parts(at(server, "x.randes").parent) == []


def test_parts_that_become_nothing_go(server: Server, tmp_path: Path) -> None:
    folder = StoredShards(at(server, "x.randes"), tmp_path / "x.randes")
    for one in many(folder, tmp_path / "part")[0]:
        if isinstance(one, Sent):
            folder.hold(one.place)
    folder.discard([])
    assert server.names() == [] and parts.begun_parts(at(server, "x.randes").parent) == []


@pytest.mark.parametrize("broken", ["gone", "cut short"])
def test_a_part_that_is_not_what_was_sent_ends_in_one_sentence(
    server: Server, tmp_path: Path, broken: str
) -> None:
    folder = StoredShards(at(server, "x.randes"), tmp_path / "x.randes")
    segments, whole = many(folder, tmp_path / "part")
    place = next(one.place for one in segments if isinstance(one, Sent))
    if isinstance(server, Azure):
        blocks = server.blocks["bucket/x.randes.d/.0123.randes-tmp"]
        one = max(blocks, key=lambda name: len(blocks[name]))
        blocks[one] = b"short"
        if broken == "gone":
            del blocks[one]
    else:
        parts.forget_part(place)
        if broken != "gone":
            server.put(f"x.randes.d/{place.name}", b"short")
    with pytest.raises(RandesError, match=r"^(s3|gs|az)://\S+: .+") as found:
        folder.join("digest", segments, len(whole))
    assert found.value.exit_code in (5, 9) and "\n" not in str(found.value)


def test_blocks_of_a_dead_worker_are_named_and_removed(azure: Azure, tmp_path: Path) -> None:
    base = random_state({"a.weight": [60, 512]})
    save(base, Path("base.safetensors"))
    save(perturbed(base, seed=1), Path("a.safetensors"))
    bank = "az://bucket/x.randes"
    options = PackOptions(max_shard_size=10**9)
    pack("base.safetensors", [TaskInput("a", "a.safetensors")], bank, options)
    before = azure.names()
    folder = StoredShards(RemotePath(bank), tmp_path / "x.randes")
    left(folder, tmp_path / "part", 0, b"work of a dead worker")
    told = verify(bank)
    assert told.sound and len(told.unnamed) == 1 and azure.blocks
    assert verify(bank, prune=True, older_than=0).sound
    assert not azure.blocks and azure.names() == before


@pytest.mark.parametrize("ends", ["success", "aborted"])
def test_a_copy_that_takes_a_while_is_waited_for(
    azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Within one account it is one step as a rule."""
    monkeypatch.setattr(parts, "_LOOK", 0.01)
    azure.copies = ["pending", "pending", ends]
    folder = StoredShards(RemotePath("az://bucket/x.randes"), tmp_path / "x.randes")
    segments, whole = many(folder, tmp_path / "part")
    if ends == "success":
        folder.join("digest", segments, len(whole))
    else:
        with pytest.raises(HubError, match=r"^az://\S+: the store gave up .*\(aborted\)"):
            folder.join("digest", segments, len(whole))
    assert azure.copies == []
