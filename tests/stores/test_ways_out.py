"""What is unpacked into a bucket: the files of a local unpack, weights last, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from randes_cli import (
    EditOptions,
    HubError,
    NoSpace,
    PackOptions,
    RunOptions,
    TaskInput,
    UsageError,
    add,
    convert,
    pack,
    seal,
    unpack,
    verify,
)
from randes_cli.cli.main import run
from randes_cli.files.upload import upload
from randes_cli.read.places import UnpackOptions
from tests.checkpoints import perturbed, random_state, save
from tests.store_server import Store

SHAPES = {"a.weight": [200, 128], "b.weight": [300, 128], "norm": [128]}
CUT = UnpackOptions(shard_bytes=120_000)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of two folders and a bare file, in the working folder."""
    base = random_state(SHAPES)
    save(base, tmp_path / "base.safetensors")
    for seed, name in enumerate(("cars", "dtd")):
        folder = tmp_path / name
        folder.mkdir()
        save(perturbed(base, seed=seed), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"name": name}))
    save(perturbed(base, seed=5), tmp_path / "bare.safetensors")
    monkeypatch.chdir(tmp_path)
    pack("base.safetensors", ["cars", "dtd", "bare.safetensors"], "x.randes")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder here, by its name below it."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def stored(store: Store, prefix: str) -> dict[str, bytes]:
    names = [name for name in store.names() if name.startswith(prefix)]
    return {name.removeprefix(prefix): store.get(name) for name in names}


@pytest.mark.parametrize("options", [UnpackOptions(), CUT], ids=["whole", "in shards"])
def test_all_tasks_in_a_bucket_are_those_of_a_folder(
    store: Store, here: Path, options: UnpackOptions
) -> None:
    unpack("x.randes", None, "out", options)
    told = unpack("x.randes", None, store.at("out"), options)
    assert stored(store, "out/") == files(here / "out")
    named = [name for report in told for name in report.files]
    assert sorted(named) == sorted(store.at(f"out/{name}") for name in files(here / "out"))
    sent = [one.path for one in store.requests if one.method == "PUT" and "/cars/" in one.path]
    assert sent[0].endswith("config.json") and "model" in sent[-1]
    assert sent[-1].endswith("index.json") == (options is CUT)


@pytest.mark.parametrize(("task", "out"), [("cars", "one"), ("bare", "b.safetensors")])
def test_one_task_goes_to_the_folder_or_file_that_is_named(
    store: Store, here: Path, task: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["unpack", "x.randes", task, "-o", store.at(out)]) == 0
    assert store.at(out) in capsys.readouterr().out
    assert run(["unpack", "x.randes", task, "-o", out]) == 0
    near = {out: Path(out).read_bytes()} if Path(out).is_file() else files(here / out)
    assert sorted(stored(store, "").values()) == sorted(near.values())


def test_what_is_there_is_replaced_with_force_alone(store: Store, here: Path) -> None:
    store.put("out/cars/model.safetensors", b"old")
    before = stored(store, "")
    with pytest.raises(UsageError, match=r"s3://.*/out/cars/model\.safetensors: exists"):
        unpack("x.randes", None, store.at("out"))
    with pytest.raises(UsageError, match=r"s3://.*model\.safetensors: would be loaded beside"):
        unpack("x.randes", "cars", store.at("out/cars"), CUT)
    assert stored(store, "") == before
    unpack("x.randes", None, store.at("out"), UnpackOptions(force=True))
    unpack("x.randes", None, "out")
    assert stored(store, "out/") == files(here / "out")


def test_an_original_in_the_bucket_is_never_replaced(store: Store, here: Path) -> None:
    store.put_folder(here)
    force = UnpackOptions(force=True)
    pack(store.at("base.safetensors"), [store.at("cars")], "far.randes")
    for bank in ("far.randes", store.at("x.randes")):
        with pytest.raises(UsageError, match=r"s3://.*is what cars was packed from"):
            unpack(bank, "cars", store.at("cars"), force)
    with pytest.raises(UsageError, match="is what the base was packed from"):
        unpack(store.at("x.randes"), "cars", store.at("base.safetensors"), force)
    assert stored(store, "cars/") == files(here / "cars")


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "InternalError"), (503, "SlowDown"), (0, "reset"), (403, "ExpiredToken")],
)
def test_an_upload_that_fails_leaves_nothing_new(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str], status: int, code: str
) -> None:
    store.put("out/cars/config.json", b"old")
    store.fail("out/dtd/model", status, code, method="PUT")
    words = ["unpack", "x.randes", "dtd", "-o", store.at("out/dtd"), "-q", "--debug"]
    words += ["--force"] * (status == 503)
    assert run(words) == 9
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"randes: {store.at('out/dtd/model')}")
    assert list(stored(store, "out/")) == ["cars/config.json"]
    store.forget()
    store.fail("out/dtd/model", status, code, method="PUT", times=2)
    if status != 403:
        assert run(words) == 0
        assert sorted(stored(store, "out/dtd/")) == ["config.json", "model.safetensors"]


def test_a_dry_run_names_the_places_and_writes_none(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["unpack", "x.randes", "--all", "-o", store.at("out"), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]
    assert [task["path"] for task in told] == [
        store.at(f"out/{name}") for name in ("cars", "dtd", "bare.safetensors")
    ]
    assert not store.names()
    assert not [one for one in store.requests if one.method == "PUT"]


def test_no_room_among_the_temporary_files_is_said_beforehand(
    store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.atomic.free_bytes", lambda _: 100_000)
    with pytest.raises(NoSpace, match=rf"free; {store.at('out')} is made there before it is"):
        unpack("x.randes", "cars", store.at("out"))
    with pytest.raises(NoSpace, match="name a folder with room in TMPDIR"):
        pack("base.safetensors", ["cars"], store.at("y.randes"))
    assert not store.names()


def test_uploads_tell_every_byte(store: Store, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("randes_cli.files.stores.s3._PART", 2**16)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 2**16)
    told: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))

    convert("x.randes", store.at("x.randes"), progress=progress)
    sent = [(done, total) for phase, done, total in told if phase == "uploading"]
    size = Path("x.randes").stat().st_size
    assert len(sent) > 3 and sum(done for done, _ in sent) == size == sent[0][1]
    told.clear()
    at, most = store.at("y.randes"), PackOptions(max_shard_size=100_000)
    pack("base.safetensors", ["cars"], at, most, progress=progress)
    sent = [(done, total) for phase, done, total in told if phase == "uploading"]
    assert sent and sum(done for done, _ in sent) <= sum(map(len, stored(store, "y.").values()))
    told.clear()
    unpack("x.randes", "cars", store.at("cars"), progress=progress)
    sent = [(done, total) for phase, done, total in told if phase == "uploading"]
    assert sum(done for done, _ in sent) == sum(map(len, stored(store, "cars/").values()))


def test_shards_make_room_as_soon_as_they_are_whole(
    store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bank that is cut while it is copied or sealed, few shards are here at a time."""
    most, sizes = 20_000, list[int]()
    monkeypatch.setenv("TMPDIR", str(here / "spool"))
    (here / "spool").mkdir()

    def watched(*arguments: Any, **more: Any) -> None:
        spool = (path for path in (here / "spool").rglob("*") if path.is_file())
        sizes.append(sum(path.stat().st_size for path in spool))
        upload(*arguments, **more)

    monkeypatch.setattr("randes_cli.files.bank.stored_shards.upload", watched)
    single = tuple(f"w.{n}" for n in range(14))
    state = random_state({name: [40, 64] for name in single})
    save(state, Path("many.safetensors"))
    save(perturbed(state, seed=1), Path("one.safetensors"))
    chosen, run = PackOptions(max_shard_size=most), RunOptions(threads=1)
    pack("many.safetensors", ["one.safetensors"], "m.randes", chosen, run)
    size = sum(map(len, files(here / "m.randes.d").values()))
    for work in (
        lambda: convert("m.randes", store.at("m.randes")),
        lambda: seal("m.randes", store.at("s.randes"), 8, run),
    ):
        sizes.clear()
        work()
        assert len(sizes) > 10 and max(sizes) < 3 * most < size / 3
    pack("many.safetensors", ["one.safetensors"], store.at("p.randes"), chosen, run)
    seal("m.randes", "s.randes", 8, run)
    assert stored(store, "m.randes") == stored(store, "p.randes")
    assert stored(store, "s.randes.d/") == files(here / "s.randes.d")
    assert stored(store, "m.randes.d/") == files(here / "m.randes.d")
    edits = EditOptions()
    add(store.at("p.randes"), [TaskInput("two", "one.safetensors")], edits, run)
    add("m.randes", [TaskInput("two", "one.safetensors")], edits, run)
    assert verify(store.at("p.randes"), run=run, prune=True, older_than=0).sound
    assert stored(store, "p.randes.d/") == files(here / "m.randes.d")


def test_a_bank_goes_from_store_to_store_as_it_is(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["x.randes", "-o", store.at("a/x.randes")],
        [store.at("a/x.randes"), "-o", store.at("b/x.randes"), "--max-shard-size", "100KB"],
        [store.at("b/x.randes"), "-o", store.at("c/x.randes")],
        [store.at("c/x.randes"), "-o", "y.randes"],
    ):
        assert run(["convert", *words, "-q"]) == 0
    assert store.get("a/x.randes") == Path("x.randes").read_bytes()
    assert stored(store, "b/") == stored(store, "c/")
    there = {f"y{name.removeprefix('x')}": data for name, data in stored(store, "c/").items()}
    assert {name: files(here)[name] for name in there} == there
    assert run(["convert", "x.randes", "-o", "z.randes"]) == 2
    assert "say --max-shard-size SIZE, or --single-file" in capsys.readouterr().err


def test_push_says_where_banks_go(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["x.randes", store.at("y")], f"randes convert x.randes -o {store.at('y')}"),
        ([store.at("x.randes"), "org/name"], f"randes convert {store.at('x.randes')} -o x.randes"),
    ):
        assert run(["push", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_forgotten_unit_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["pack", "base.safetensors", "cars", "-o", "y.randes"],
        ["unpack", "x.randes", "cars", "-o", "o"],
        ["seal", "x.randes", "--bits", "2", "-o", "y.randes"],
        ["convert", "x.randes", "-o", "y.randes"],
        ["add", "x.randes", "n=dtd"],
        ["remove", "x.randes", "cars"],
    ):
        assert run([*words, "--max-shard-size", "5"]) == 2
        assert "5 bytes, less than any shard has; did you mean 5GB?" in capsys.readouterr().err
    assert not Path("y.randes").exists() and not Path("o").exists()


def test_an_interrupted_upload_leaves_nothing_new(
    store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "uploading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack("x.randes", "cars", store.at("cars"), progress=stop)
    assert not store.names() and not store.uploads()
    with pytest.raises(HubError):
        store.fail("", 500, "InternalError", method="GET")
        unpack("x.randes", "cars", store.at("cars"))


def test_what_another_put_there_meanwhile_stays(store: Store, here: Path) -> None:
    def meanwhile(phase: str, done: int, total: int) -> None:
        if phase == "uploading":
            store.put("cars/model.safetensors", b"theirs")

    with pytest.raises(UsageError, match=r"cars/model\.safetensors: exists"):
        unpack("x.randes", "cars", store.at("cars"), progress=meanwhile)
    assert stored(store, "cars/") == {"model.safetensors": b"theirs"}
