"""randes verify"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli.core.arrays import Raw
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.originals import Watched
from tests.cli.conftest import Result


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_sound_bank_passes(bank: Path, randes: Callable[..., Result]) -> None:
    result = randes("verify", bank, "--json")
    assert result.code == 0
    assert result.json["sound"] is True
    assert result.json["bytes_checked"] == bank.stat().st_size
    found = [result.json[name] for name in ("damaged", "lost", "measured")]
    assert found == [[], {}, False] and "not measured" not in randes("verify", bank).out
    cut = bank.parent / "cut.randes"
    assert randes("convert", bank, "--max-shard-size", "20kB", "-o", cut).code == 0
    files = [cut, *(bank.parent / "cut.randes.d").iterdir()]
    assert len(files) > 3
    size = sum(file.stat().st_size for file in files)
    assert randes("verify", cut, "--json").json["bytes_checked"] == size


def test_damage_is_told_by_tensor_and_task(bank: Path, randes: Callable[..., Result]) -> None:
    with BankFile(bank) as opened:
        place = opened.header.starts["own/b/head.weight"]
    flip(bank, place + 5)
    result = randes("verify", bank, "--json")
    assert result.code == 6
    assert result.json["damaged"] == ["own/b/head.weight"]
    assert result.json["hurt"] == {"b": ["own/b/head.weight"]}
    assert result.json["whole"] == ["a"]
    assert randes("unpack", bank, "-t", "a", "-o", bank.parent / "a2.safetensors").code == 0
    refused = randes("unpack", bank, "-t", "b", "-o", bank.parent / "b2.safetensors")
    assert refused.code == 6
    assert "own/b/head.weight" in refused.err
    forced = ["unpack", bank, "-t", "b", "-o", bank.parent / "b2.safetensors", "--force"]
    done = randes(*forced)
    assert (done.code, "DAMAGED: 'own/b/head.weight'" in done.out) == (0, True)


def test_against_measures_what_was_predicted(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    result = randes("verify", bank, "--against", f"a={family / 'a.safetensors'}", "--json")
    check = result.json["against"][0]
    assert check["task"] == "a"
    assert abs(check["cosine"] - check["predicted"]) < 0.02
    assert abs(check["cosine"] - 0.707) < 0.02
    assert {tensor["name"] for tensor in check["tensors"]} >= {"wte.weight", "h.0.w.weight"}


def test_rows_that_a_task_added_are_compared_byte_by_byte(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    grown = load_file(family / "a.safetensors")
    grown["wte.weight"] = torch.cat([grown["wte.weight"], torch.ones(3, 48)])
    save_file(grown, family / "grown.safetensors")
    assert randes("add", bank, family / "grown.safetensors").code == 0
    against = ["--against", f"grown={family / 'grown.safetensors'}"]
    (check,) = randes("verify", bank, *against, "--json").json["against"]
    assert check["original"] and abs(check["cosine"] - check["predicted"]) < 0.02
    (row,) = randes("inspect", bank, *against, "--json").json["measured"]
    assert row["whole"]["cosine"] == pytest.approx(check["cosine"], abs=1e-6)
    grown["wte.weight"][-1, -1] = 2
    save_file(grown, family / "grown.safetensors")
    refused = randes("verify", bank, *against)
    assert refused.code == 4 and "exact tensor 'wte.weight' differs" in refused.err


def test_a_damaged_bank_is_not_measured_and_says_so(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    with BankFile(bank) as opened:
        place = opened.header.starts["sum/0/wte.weight"]
    flip(bank, place + 5)
    against = ("--against", f"a={family / 'a.safetensors'}")
    result = randes("verify", bank, *against)
    assert result.code == 6
    assert "not measured" in result.out
    found = randes("verify", bank, *against, "--json").json
    assert (found["sound"], found["measured"], found["against"]) == (False, False, [])


def test_a_checkpoint_that_was_not_packed_is_measured_and_told_by_its_fingerprint(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    other = load_file(family / "a.safetensors")
    other["wte.weight"][-1, -1] += 1
    save_file(other, family / "other.safetensors")
    against = [f"--against=a={family / 'other.safetensors'}"]
    against += [f"--against=b={family / 'b.safetensors'}"]
    said = randes("verify", bank, *against)
    assert (said.code, "sound" in said.out) == (1, True)
    assert "other checkpoints than were packed as a (" in said.err
    found = randes("verify", bank, *against, "--json")
    assert (found.code, found.json["sound"], found.json["measured"]) == (1, True, True)
    assert [check["original"] for check in found.json["against"]] == [False, True]
    other["ids"][-1] += 1
    save_file(other, family / "other.safetensors")
    refused = randes("verify", bank, *against)
    assert (refused.code, "exact tensor 'ids' differs from the check" in refused.err) == (4, True)


def test_every_command_that_reads_originals_tells_one_that_was_not_packed(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    changed = load_file(family / "a.safetensors")
    changed["wte.weight"] = changed["wte.weight"] + 0.01
    save_file(changed, family / "another.safetensors", metadata={"format": "pt"})
    commands = (
        ["verify", bank],
        ["inspect", bank],
        ["report", bank, "-o", family / "page.html", "--force"],
        ["plot", bank, "-o", family / "d.svg", "--kind", "distribution", "--force"],
    )
    for words in commands:
        right = randes(*words, "--against", f"a={family / 'a.safetensors'}", "--json")
        wrong = randes(*words, "--against", f"a={family / 'another.safetensors'}", "--json")
        assert (right.code, wrong.code) == (0, 1)
        assert "other checkpoints than were packed as a " in wrong.err
    assert right.json["strange"] == [] and wrong.json["strange"] == ["a"]


def test_an_original_is_read_once(
    bank: Path, family: Path, monkeypatch: pytest.MonkeyPatch, randes: Callable[..., Result]
) -> None:
    read: list[int] = []
    inner = Watched.read

    def counted(self: Watched, name: str, start: int, out: Raw) -> None:
        read.append(len(out))
        inner(self, name, start, out)

    monkeypatch.setattr(Watched, "read", counted)
    for task in "ab":
        path = family / f"{task}.safetensors"
        assert randes("verify", bank, "--against", f"{task}={path}").code == 0
        assert sum(read) == sum(tensor.nbytes for tensor in load_file(path).values())
        read.clear()


def test_with_json_a_sound_bank_says_nothing_else(
    bank: Path, randes: Callable[..., Result]
) -> None:
    done = randes("verify", bank, "--json")
    assert done.json["sound"] and done.err == ""


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_two_originals_of_one_task_are_refused(
    command: str, family: Path, bank: Path, randes: Callable[..., Result]
) -> None:
    twice = [f"--against=a={family / name}.safetensors" for name in "ab"]
    result = randes(command, bank, *twice)
    assert (result.code, result.err) == (2, "randes: --against: names a task twice\n")
