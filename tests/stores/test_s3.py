"""Banks and models in S3: read by range, written in one step, with the bytes of local work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from randes_cli import (
    Bank,
    BankLocked,
    HubError,
    PackOptions,
    RandesError,
    RunOptions,
    UsageError,
    add,
    pack,
    remove,
    seal,
    unpack,
    verify,
)
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from tests.checkpoints import perturbed, random_state, save
from tests.store_server import Store
from tests.stores.bucket import TASKS, inputs


def pack_both(far: Store, *names: str, options: PackOptions | None = None) -> None:
    """The same bank here and in the bucket."""
    chosen = names or TASKS
    pack("base.safetensors", inputs("", *chosen), "x.randes", options)
    at = far.at() + "/"
    pack(at + "base.safetensors", inputs(at, *chosen), at + "x.randes", options)


def same(far: Store, name: str = "x.randes") -> bool:
    return far.get(name) == Path(name).read_bytes()


# Equal bytes


@pytest.mark.parametrize("bits", [16, 3])
def test_a_bank_packed_from_and_to_a_bucket_is_the_one_packed_here(far: Store, bits: int) -> None:
    pack_both(far, options=PackOptions(bits=bits))
    assert same(far)
    assert verify(far.at("x.randes")).sound


def test_edits_in_a_bucket_give_the_bytes_of_edits_here(far: Store) -> None:
    pack_both(far, "cars", "dtd")
    for at in ("", far.at() + "/"):
        add(at + "x.randes", inputs(at, "svhn"))
    assert same(far)
    for at in ("", far.at() + "/"):
        remove(at + "x.randes", ["cars"])
    assert same(far)
    for at in ("", far.at() + "/"):
        seal(at + "x.randes", at + "s.randes", 4)
        seal(at + "x.randes", None, 8)
    assert same(far) and same(far, "s.randes")
    for at in ("", far.at() + "/"):
        words = ["tune", at + "x.randes", "--evaluate", "echo 1 # {checkpoint}", "--grid", "1,2"]
        assert run([*words, "-q"]) == 0
    assert same(far)


def test_what_is_unpacked_from_a_bucket_is_what_is_unpacked_here(far: Store) -> None:
    pack_both(far)
    unpack("x.randes", "dtd", "near.safetensors")
    unpack(far.at("x.randes"), "dtd", "far.safetensors")
    assert Path("near.safetensors").read_bytes() == Path("far.safetensors").read_bytes()
    with Bank.open("x.randes") as near, Bank.open(far.at("x.randes")) as remote:
        for name, tensor in near.retrieve("cars").items():
            assert torch.equal(remote.retrieve("cars")[name], tensor)


@pytest.mark.parametrize("max_memory", [None, 2**20])
def test_neither_threads_nor_memory_change_a_byte(far: Store, max_memory: int | None) -> None:
    at, how = far.at() + "/", RunOptions(threads=3, max_memory=max_memory)
    pack_both(far)
    pack(at + "base.safetensors", inputs(at, *TASKS), at + "x.randes", None, how, force=True)
    assert same(far)


# Bytes asked for


def test_one_task_takes_the_header_the_base_one_superposition_and_its_own_tensors(
    far: Store,
) -> None:
    options = PackOptions(groups=3)
    pack_both(far, options=options)
    far.forget()
    unpack(far.at("x.randes"), "dtd", "out.safetensors")
    with BankFile(Path("x.randes")) as bank:
        tensors, size = bank.header.tensors, bank.header.file_size
        wanted = [t.nbytes for key, t in tensors.items() if key.startswith(("base/", "sum/1/"))]
        wanted += [t.nbytes for key, t in tensors.items() if key.startswith("own/dtd/")]
        rest = 2**16 + sum(tensors[key].nbytes for key in ("manifest", "checks", "stats/norms"))
    assert sum(wanted) < far.bytes_sent("x.randes") <= sum(wanted) + rest
    assert far.bytes_sent("x.randes") < size - 2 * tensors["sum/0/b.weight"].nbytes


def test_with_a_base_at_hand_the_bank_s_is_left_where_it_is(far: Store) -> None:
    pack_both(far)
    far.forget()
    unpack(far.at("x.randes"), "cars", "out.safetensors", base="base.safetensors")
    with BankFile(Path("x.randes")) as bank:
        base = sum(t.nbytes for key, t in bank.header.tensors.items() if key.startswith("base/"))
    assert far.bytes_sent("x.randes") < len(far.get("x.randes")) - base + 2**16
    unpack("x.randes", "cars", "near.safetensors")
    assert Path("near.safetensors").read_bytes() == Path("out.safetensors").read_bytes()


def test_a_task_that_is_not_there_costs_no_more_than_a_look(
    far: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_both(far)
    for words in (["inspect", far.at("x.randes")], ["unpack", far.at("x.randes"), "-t", "cats"]):
        far.forget()
        assert run([*words, "-q"]) == (0 if words[0] == "inspect" else 5)
        assert far.bytes_sent("x.randes") < 90_000 < len(far.get("x.randes")) / 3
    assert "did you mean cars" in capsys.readouterr().err


def test_packing_reads_every_byte_once_but_for_the_samples(far: Store) -> None:
    pack_both(far)
    for name in ("base", *TASKS):
        path = Path(f"{name}.safetensors")
        assert path.stat().st_size <= far.bytes_sent(path.name) < 3.5 * path.stat().st_size
    assert not list(Path().glob("*.part"))


# Writers


def test_a_bank_that_is_there_is_replaced_with_force_alone(far: Store) -> None:
    pack_both(far)
    at = far.at() + "/"
    with pytest.raises(UsageError, match="exists"):
        pack(at + "base.safetensors", inputs(at, "cars"), at + "x.randes")
    with pytest.raises(UsageError, match="is an input"):
        pack(at + "base.safetensors", inputs(at, "cars"), at + "cars.safetensors", force=True)
    pack(at + "base.safetensors", inputs(at, "cars"), at + "x.randes", force=True)
    with Bank.open(far.at("x.randes")) as bank:
        assert bank.tasks == ("cars",)


@pytest.mark.parametrize("edits", [True, False])
def test_of_two_writers_the_one_that_comes_later_is_refused(far: Store, edits: bool) -> None:
    at, other = far.at() + "/", b""
    if edits:
        pack_both(far, "cars")

    def meanwhile(phase: str, done: int, total: int) -> None:
        nonlocal other
        other = other or Path("base.safetensors").read_bytes()
        far.put("x.randes", other)

    with pytest.raises(RandesError) as error:
        if edits:
            add(at + "x.randes", inputs(at, "dtd"), progress=meanwhile)
        else:
            base = at + "base.safetensors"
            pack(base, inputs(at, "dtd"), at + "x.randes", progress=meanwhile)
    assert isinstance(error.value, (BankLocked, HubError) if edits else UsageError)
    assert far.get("x.randes") == other


@pytest.mark.parametrize("parts", [False, True], ids=["one put", "parts"])
@pytest.mark.parametrize("case", ["add", "add to one that went", "pack"])
def test_a_writer_who_comes_at_the_last_moment_is_not_overwritten(
    far: Store, case: str, parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself refuses the call that makes the object."""
    from s3fs import S3FileSystem

    bank, real = far.at("x.randes"), S3FileSystem.call_s3
    if parts:
        monkeypatch.setattr("randes_cli.files.stores.s3._PART", 2**16)
        monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 2**16)
    if case != "pack":
        pack("base.safetensors", inputs("", "cars"), bank)

    def late(self: S3FileSystem, method: str, *rest: object, **words: object) -> object:
        if method == ("complete_multipart_upload" if parts else "put_object"):
            far.put("x.randes", b"another's")
            if "went" in case:
                far.delete("x.randes")
        return real(self, method, *rest, **words)

    monkeypatch.setattr(S3FileSystem, "call_s3", late)
    if case == "pack":
        with pytest.raises(UsageError, match="exists"):
            pack("base.safetensors", inputs("", "cars"), bank)
    else:
        with pytest.raises(BankLocked, match="another writer replaced it"):
            add(bank, inputs("", "dtd"))
    there = {name: far.get(name) for name in far.names() if name == "x.randes"}
    assert there == ({} if "went" in case else {"x.randes": b"another's"})
    assert not far.uploads()


def test_a_large_bank_goes_up_in_parts_and_appears_with_the_last_call(
    far: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.stores.s3._PART", 5 * 2**20)
    base = random_state({"big.weight": [1024, 1500]})
    save(base, Path("big.safetensors"))
    save(perturbed(base, seed=1), Path("task.safetensors"))
    tasks = inputs("", "task")
    pack("big.safetensors", tasks, "big.randes")
    far.fail("uploadId", 500, "InternalError", method="POST")
    with pytest.raises(HubError, match="InternalError"):
        pack("big.safetensors", tasks, far.at("big.randes"))
    assert "big.randes" not in far.names()
    assert not far.uploads()
    far.forget()
    far.fail("partNumber=2", 503, "SlowDown", method="PUT", times=2)
    pack("big.safetensors", tasks, far.at("big.randes"))
    assert same(far, "big.randes")
    assert len([one for one in far.asked("big.randes", "PUT") if one.status == 200]) == 2


def test_an_upload_whose_answer_is_lost_counts(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    pack("base.safetensors", inputs("", "cars"), "x.randes")
    real = S3FileSystem.call_s3

    def lossy(self: S3FileSystem, method: str, *rest: object, **words: object) -> object:
        found = real(self, method, *rest, **words)
        if method == "put_object":
            raise ConnectionResetError("the answer was lost")
        return found

    monkeypatch.setattr(S3FileSystem, "call_s3", lossy)
    pack("base.safetensors", inputs("", "cars"), far.at("x.randes"))
    assert far.get("x.randes") == Path("x.randes").read_bytes()
