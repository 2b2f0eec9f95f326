"""Addresses: their parts, what they show, and which a bank may have us follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from randes_cli import UsageError
from randes_cli.build.records import recorded_source
from randes_cli.errors import without_login
from randes_cli.files.base import find_recorded
from randes_cli.files.hub.ref import parse_ref
from randes_cli.files.location import RemotePath, as_place, recorded_place
from randes_cli.files.source import near_pieces

SIGNED = "https://host/dir/x.safetensors?X-Amz-Signature=abc&X-Amz-Credential=AKIA"


def test_an_address_has_the_parts_of_a_path() -> None:
    place = RemotePath("s3://bucket/dir/x.tar.safetensors")
    assert (place.scheme, place.name, place.stem, place.suffix) == (
        "s3",
        "x.tar.safetensors",
        "x.tar",
        ".safetensors",
    )
    assert str(place.parent / "y") == str(place.with_name("y")) == "s3://bucket/dir/y"
    assert str(place.parent.parent) == str(place.parent.parent.parent) == "s3://bucket"
    assert place.below(place.parent) == "x.tar.safetensors"
    assert place.below(RemotePath("s3://bucket/d")) is None
    assert str(RemotePath(SIGNED).parent / "y") == "https://host/dir/y"


def test_addresses_are_equal_where_they_show_alike() -> None:
    assert RemotePath(SIGNED) == RemotePath("https://host/dir/x.safetensors")
    assert len({RemotePath(SIGNED), RemotePath("https://me@host/dir/x.safetensors")}) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SIGNED, "https://host/dir/x.safetensors"),
        ("s3://AKIA:se/cr+et@bucket/x", "s3://bucket/x"),
        ("https://me:pw@host:8080/x@1", "https://host:8080/x@1"),
        ("http://127.0.0.1:9000/b/x@1", "http://127.0.0.1:9000/b/x@1"),
        ("https://ghp_token@host/x", "https://host/x"),
        ("abfs://box@name.dfs.core.windows.net/x", "abfs://box@name.dfs.core.windows.net/x"),
        ("az://box/x?sv=1&sig=abc", "az://box/x"),
        ("two: s3://k:s@b/x, and 'https://h/y?sig=1'", "two: s3://b/x, and 'https://h/y'"),
        ("is it here? no", "is it here? no"),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret(text: str, shown: str) -> None:
    assert without_login(text) == shown


def test_a_file_address_is_a_path_and_a_path_that_is_there_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert as_place("s3://b") == Path("s3://b")
    assert as_place("dir/x.safetensors") == Path("dir/x.safetensors")


def test_a_signature_may_be_longer_than_a_path() -> None:
    address = f"https://host/x.randes?X-Amz-Security-Token={'t' * 5000}"
    assert as_place(address) == RemotePath("https://host/x.randes")
    assert parse_ref(address) is None


@pytest.mark.parametrize(
    "source",
    ["file:///etc/passwd", "local:///etc/passwd", "ftp://h/x", "zip://x::file:///etc", "/etc/x"],
)
def test_a_bank_from_elsewhere_leads_to_nothing_of_this_machine(source: str) -> None:
    assert recorded_place(source) is None
    assert find_recorded(source, Path("x.randes")) is None
    assert find_recorded(source, RemotePath("memory://b/x.randes")) is None


def test_a_source_is_recorded_below_its_bank_or_whole() -> None:
    bank = RemotePath("s3://b/banks/x.randes")
    for source, recorded in (
        ("s3://b/banks/m/cars.st", "m/cars.st"),
        ("s3://b/other/cars.st", "s3://b/other/cars.st"),
        (SIGNED, "https://host/dir/x.safetensors"),
        ("/somewhere/cars.st", "cars.st"),
    ):
        assert recorded_source(source, bank) == recorded
    assert recorded_source("s3://b/banks/m/cars.st", Path("x.randes")) == "s3://b/banks/m/cars.st"


@pytest.mark.parametrize("text", ["s3://k:s@b/x", "gs://k:s@b/x", "simplecache::s3://b/x"])
def test_logins_and_addresses_in_addresses_are_refused(text: str) -> None:
    if "::" in text:
        text = f"zip://{text}"
    with pytest.raises(UsageError, match=r"holds a login|an address in an address"):
        as_place(text)


def test_nothing_of_fsspec_is_loaded_for_what_lies_here(tmp_path: Path) -> None:
    bank = Path(__file__).parents[1] / "banks" / "v1-example.randes"
    for words in (["--help"], ["inspect", str(bank)], ["unpack", str(bank), "--all", "--dry-run"]):
        script = (
            "import sys; from randes_cli.cli.main import run; code = run(sys.argv[1:]); "
            "sys.exit(code or 'fsspec' in sys.modules)"
        )
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, check=False, capture_output=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("gap", "found"), [(0, [1, 1, 1, 1]), (10, [2, 2]), (2**20, [4])])
def test_runs_that_lie_near_are_read_together(gap: int, found: list[int]) -> None:
    pieces = [(start, np.empty(5, np.uint8)) for start in (0, 15, 500, 505)]
    made = near_pieces(pieces, gap)
    assert [len(together) for together in made] == found
    assert [start for together in made for start, _ in together] == [0, 15, 500, 505]
