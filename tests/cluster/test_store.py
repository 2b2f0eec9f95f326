"""A cluster and a bucket: workers read ranges and send shards, with the bytes of local work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from randes_cli import HubError, add, pack, remove, seal, unpack, verify
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import EditOptions, PackOptions, RunOptions, TaskInput
from tests.azure_server import Azure
from tests.cluster.conftest import RAY, in_shards
from tests.cluster.deaths import killing
from tests.cluster.driver import run_until
from tests.cluster.test_faults import large
from tests.google_server import Google
from tests.life.models import ONE
from tests.store_server import ACCESS, SECRET, Store


@pytest.fixture
def far(cluster: Any, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The family in a bucket, and in the working folder."""
    store.put_folder(folder)
    store.forget()
    monkeypatch.chdir(folder)
    return store


def stored(store: Store) -> dict[str, bytes]:
    """What is in the bucket and is no checkpoint."""
    return {name: store.get(name) for name in store.names() if not name.endswith("st.safetensors")}


def banks(store: Store) -> dict[str, bytes]:
    return {name: data for name, data in stored(store).items() if ".randes" in name}


def here() -> dict[str, bytes]:
    found = (path for path in Path().rglob("*") if path.is_file() and ".randes" in str(path))
    return {path.as_posix(): path.read_bytes() for path in found}


def packed(far: Store, run: RunOptions, at: str, chosen: PackOptions, out: str) -> None:
    names = ("whole", "sparse", "half")
    tasks = [TaskInput(name, f"{at}{name}.safetensors") for name in names]
    pack(f"{at}base.safetensors", tasks, f"{at}{out}", chosen, run)


@pytest.mark.parametrize(
    "chosen", [in_shards(None), in_shards(bits=3)], ids=["one file", "3 bits, in shards"]
)
def test_a_bank_in_a_bucket_is_the_one_made_here(far: Store, chosen: PackOptions) -> None:
    packed(far, ONE, "", chosen, "x.randes")
    packed(far, RAY, far.at() + "/", chosen, "x.randes")
    assert banks(far) == here()
    assert not far.uploads()


def test_edits_seals_and_unpacks_in_a_bucket_are_those_made_here(far: Store) -> None:
    for run, at in ((ONE, ""), (RAY, far.at() + "/")):
        packed(far, run, at, in_shards(), "x.randes")
        add(f"{at}x.randes", [TaskInput("single", f"{at}single.safetensors")], EditOptions(), run)
        remove(f"{at}x.randes", ["half"], EditOptions(), run)
        seal(f"{at}x.randes", f"{at}s.randes", 4, run)
        seal(f"{at}x.randes", f"{at}one.randes", 2, run, max_shard_size=10**9)
        unpack(f"{at}x.randes", None, f"{at}out", UnpackOptions(), run)
    assert verify(far.at("x.randes"), run=RAY, prune=True, older_than=0).sound
    assert banks(far) == here()
    out = {path.as_posix(): path.read_bytes() for path in Path("out").rglob("*.*")}
    assert {name: far.get(name) for name in out} == out


def test_a_large_shard_is_made_by_several_workers_and_joined_by_the_store(
    cluster: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = large(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("randes_cli.cluster.Cluster.share", lambda *_: 6_000_000)
    monkeypatch.setattr("randes_cli.build.crew.pieces._LEAST_SENT", 2**20)
    died = killing(monkeypatch, tmp_path / "marks")
    for at, run in (("", ONE), (store.at() + "/", RAY)):
        pack("base.safetensors", tasks, f"{at}x.randes", PackOptions(max_shard_size=10**9), run)
        seal(f"{at}x.randes", f"{at}s.randes", 4, run)
    assert died() >= {"packing", "joining", "sealing"} and not store.uploads()
    copied = [one for one in store.requests if "x_amz_copy_source" in one.headers]
    assert {one.path.partition(".d/")[0].rpartition("/")[2] for one in copied} == {
        "x.randes",
        "s.randes",
    }
    for bank in ("x.randes", "s.randes"):  # a worker that died had sent what nobody was told of
        assert verify(store.at(bank), run=ONE, prune=True, older_than=0).sound
    assert banks(store) == here()


@pytest.mark.parametrize("kind", ["google", "azure"])
def test_other_stores_join_what_several_workers_send(
    cluster: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    server: Google | Azure = request.getfixturevalue(kind)
    tasks, at = large(Path()), {"google": "gs", "azure": "az"}[kind] + "://bucket/"
    monkeypatch.setattr("randes_cli.cluster.Cluster.share", lambda *_: 6_000_000)
    monkeypatch.setattr("randes_cli.build.crew.pieces._LEAST_SENT", 2**20)
    for there, run in (("", ONE), (at, RAY)):
        chosen = PackOptions(max_shard_size=10**9)
        pack("base.safetensors", tasks, f"{there}x.randes", chosen, run)
    assert any(one.endswith("/compose") or "blocklist" in one for one in server.asked)
    assert {name: server.get(name) for name in server.names()} == here()
    assert verify(f"{at}x.randes", run=ONE).sound


def test_a_node_that_goes_midway_changes_nothing(
    cluster: Any, node: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = large(tmp_path)
    monkeypatch.chdir(tmp_path)
    killed: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase.startswith("packing on") and not killed:
            killed.append(phase)
            cluster.remove_node(node)

    chosen = PackOptions(max_shard_size=2_000_000)
    pack("base.safetensors", tasks, store.at("x.randes"), chosen, RAY, progress=progress)
    assert killed
    pack("base.safetensors", tasks, "x.randes", chosen, ONE)
    assert verify(store.at("x.randes"), run=ONE, prune=True, older_than=0).sound
    assert banks(store) == here()


def test_what_a_killed_driver_leaves_in_a_bucket_is_named_and_removed(
    cluster: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = large(tmp_path)
    monkeypatch.chdir(tmp_path)
    pack("base.safetensors", tasks[:1], store.at("x.randes"), PackOptions(), ONE)
    before = banks(store)
    files = [str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b")]
    words = ["pack", *files, "-q", "--force"]
    words += ["-o", store.at("x.randes"), "--engine", "ray", "--address", cluster.address]
    run_until("packing", tmp_path / "lock", words)
    assert before.items() <= banks(store).items() and len(banks(store)) > len(before)
    begun = store.begin("x.randes.d/part")
    told = verify(store.at("x.randes"), run=ONE, prune=True, older_than=0)
    assert told.sound and told.pruned
    assert banks(store) == before and not store.uploads() and begun


def test_a_store_that_stumbles_is_asked_again_by_workers(far: Store) -> None:
    packed(far, ONE, "", in_shards(), "x.randes")
    for part, status, code, method in (
        ("whole", 500, "InternalError", "GET"),
        ("half", 503, "SlowDown", "GET"),
        ("sparse", 0, "reset", "GET"),
        ("x.randes.d", 503, "SlowDown", "PUT"),
        ("x.randes.d", 0, "reset", "PUT"),
    ):
        far.fail(part, status, code, times=1, method=method)
    packed(far, RAY, far.at() + "/", in_shards(), "x.randes")
    assert banks(far) == here() and not any(fault.times for fault in far.faults)


@pytest.mark.parametrize(("part", "method"), [("whole", "GET"), ("x.randes.d", "PUT")])
def test_credentials_that_expire_in_a_worker_end_in_one_sentence(
    far: Store, part: str, method: str
) -> None:
    far.fail(part, 403, "ExpiredToken", method=method)
    with pytest.raises(HubError, match=r"^s3://.*: the store refused it \(ExpiredToken") as found:
        packed(far, RAY, far.at() + "/", in_shards(), "x.randes")
    assert SECRET not in str(found.value) and ACCESS not in str(found.value)
    far.forget()
    assert banks(far) == {}
