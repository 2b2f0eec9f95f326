"""Files that lie: each row is an input, its exit code and what the one line of the error says."""

from __future__ import annotations

import json
import os
import pickle
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randes_cli.cli.main import run
from tests.hostile.small import write_small_family


def _file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _one(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def _two(first: tuple[int, int], second: tuple[int, int]) -> dict[str, Any]:
    return {
        name: {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        for name, (start, stop) in (("a", first), ("b", second))
    }


_DISAGREE = "tensor 'a': shape, dtype and data_offsets disagree"
_OTHER_FIELDS = "tensor 'a': not dtype, shape and data_offsets"
HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "short": (b"1234", "not a safetensors file: shorter than 8 bytes"),
    "length 0": (bytes(8), "Expecting value"),
    "length 0 and data": (bytes(64), "not a safetensors file"),
    "length 2^63": (_file({}, length=2**63), "a header of 9223372036854775808 bytes"),
    "length beyond the file": (
        _file({}, length=5000),
        "truncated: 5008 header bytes declared",
    ),
    "length beyond the limit": (_file({}, length=100_000_001), "a header of 100000001 bytes"),
    "not an object": (_file(b"[]      "), "not a safetensors file"),
    "no JSON": (_file(b"{nonsense}"), "Expecting property name"),
    "deep": (_file(b'{"a":' + b"[" * 10**5), "nested too deeply"),
    "duplicate keys": (_file(b'{"a":1,"a":2}'), "duplicate key 'a'"),
    "duplicate keys in the metadata": (
        _file(b'{"__metadata__":{"k":"1","k":"2"}}'),
        "duplicate key 'k'",
    ),
    "bad UTF-8": (_file(b'{"\xff":1}'), "not UTF-8 at byte 2"),
    "lone surrogate": (_file(b'{"\\ud800":1}'), "an escape of half a character"),
    "NaN": (_file(b'{"a":NaN}'), "NaN is not JSON"),
    "infinity": (_file(b'{"a":-Infinity}'), "-Infinity is not JSON"),
    "10^400": (_file(_one(shape=[10**400])), "tensor 'a': bad shape"),
    "float 1e400": (_file(b'{"a":1e400}'), "1e400 is not a number that fits"),
    "5000 digits": (_file(b'{"a":1' + b"0" * 5000 + b"}"), "an integer of 5001 digits"),
    "negative shape": (_file(_one(shape=[-1])), "tensor 'a': bad shape"),
    "negative offset": (_file(_one(offsets=[-4, 0])), "tensor 'a': bad data_offsets"),
    "three offsets": (_file(_one(offsets=[0, 2, 4])), "tensor 'a': bad data_offsets"),
    "swapped offsets": (_file(_one(offsets=[4, 0])), _DISAGREE),
    "float shape": (_file(_one(shape=[1.0])), "tensor 'a': bad shape"),
    "boolean shape": (_file(_one(shape=[True])), "tensor 'a': bad shape"),
    "2^63": (_file(_one(shape=[0, 2**63], offsets=[0, 0])), "tensor 'a': bad shape"),
    "shape a number": (_file(_one(shape=2)), "tensor 'a': bad shape"),
    "offsets a number": (_file(_one(offsets=8)), "tensor 'a': bad data_offsets"),
    "65 dimensions": (_file(_one(shape=[1] * 65)), "tensor 'a': bad shape"),
    "unknown dtype": (_file(_one("F4")), "dtype 'F4' is packed or unknown; give the unquantised"),
    "dtype a list": (_file({"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}), "dtype"),
    "no dtype": (_file({"a": {"shape": [1], "data_offsets": [0, 4]}}), _OTHER_FIELDS),
    "more fields": (
        _file({"a": {**_one()["a"], "z": 1}}),
        _OTHER_FIELDS,
    ),
    "shape × dtype": (_file(_one(shape=[2]), bytes(4)), _DISAGREE),
    "overflowing shape": (_file(_one(shape=[2**40, 2**40])), _DISAGREE),
    "terabytes": (_file(_one(shape=[2**40], offsets=[0, 2**42])), "truncated: 4398046511"),
    "overlap": (_file(_two((0, 8), (4, 12)), bytes(12)), "'b': its data overlap or leave a hole"),
    "hole": (_file(_two((0, 4), (8, 12)), bytes(12)), "'b': its data overlap or leave a hole"),
    "late start": (_file(_two((4, 8), (8, 12)), bytes(12)), "'a': its data overlap or leave"),
    "bytes that lack": (_file(_one(), bytes(3)), "truncated: "),
    "bytes after": (_file(_one(), bytes(9)), "followed by other bytes"),
    "metadata of numbers": (_file({"__metadata__": {"a": 1}}), "not a map of strings"),
    "metadata a list": (_file({"__metadata__": []}), "not a map of strings"),
    "ANSI in a name": (_file({"\x1b[31mred": _one()["a"]}, bytes(4)), "control characters"),
    "newline in a name": (_file({"a\nb": _one()["a"]}, bytes(4)), "control characters"),
    "NUL in a name": (_file({"a\0b": _one()["a"]}, bytes(4)), "control characters"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "file (run: git lfs pull)",
    ),
    "HTML": (b"<!DOCTYPE html><html></html>", "an HTML page, not a checkpoint"),
    "html": (b"<html><body>gone</body></html>", "an HTML page, not a checkpoint"),
    "GGUF": (b"GGUF" + bytes(100), "a GGUF file: quantised weights"),
    "zipped pickle": (b"PK\x03\x04\x14\0\x08\x08" + bytes(60), "pickled weights"),
    "pickle": (b"\x80\x02}q\0." + bytes(60), "pickled weights"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_family(tmp_path_factory.mktemp("headers"))


@pytest.mark.parametrize("name", HEADERS)
def test_a_malformed_checkpoint_is_refused_with_3_and_its_reason(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, said = HEADERS[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    for base, task in ((path, folder / "a.safetensors"), (folder / "base.safetensors", path)):
        assert run(["pack", str(base), f"t={task}", "-o", str(tmp_path / "out.randes")]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "bad.safetensors" in error
        assert said in error
        assert "\x1b" not in error
    assert run(["verify", str(path)]) == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.safetensors"]


def test_200_megabytes_of_json_are_not_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little") + b'{"a":"')
        file.truncate(200_000_008)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    words = ["pack", str(folder / "base.safetensors"), str(path), "-o", str(tmp_path / "o.randes")]
    assert run(words) == 3
    assert "a header of 200000000 bytes" in capsys.readouterr().err
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.system, ("touch pickle-was-run",))


@pytest.mark.parametrize("suffix", ["bin", "safetensors", "st", "randes"])
def test_a_pickle_is_never_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = tmp_path / f"bomb.{suffix}"
    for protocol in (2, 4, 5):
        bomb.write_bytes(pickle.dumps(_Bomb(), protocol=protocol))
        words = ["pack", str(folder / "base.safetensors"), str(bomb), "-o", "out.randes"]
        assert run(words) == 3
        assert run(["inspect", str(bomb)]) == (6 if suffix == "randes" else 3)
        assert [path.name for path in tmp_path.iterdir()] == [bomb.name]


INDEXES: dict[str, tuple[object, str]] = {
    "a folder up": ({"weight_map": {"h.0.w": "../a.safetensors"}}, "bad file name"),
    "an absolute path": ({"weight_map": {"h.0.w": "/etc/passwd"}}, "bad file name"),
    "a folder": ({"weight_map": {"h.0.w": ".."}}, "bad file name"),
    "nothing": ({"weight_map": {"h.0.w": ""}}, "bad file name"),
    "a number": ({"weight_map": {"h.0.w": 7}}, "bad file name"),
    "a backslash": ({"weight_map": {"h.0.w": "..\\a.safetensors"}}, "bad file name"),
    "a NUL": ({"weight_map": {"h.0.w": "a\0.safetensors"}}, "bad file name"),
    "no map": ({"weight_map": {}}, "has no weight_map"),
    "a list": ([], "has no weight_map"),
    "a shard that is not there": ({"weight_map": {"h.0.w": "x.safetensors"}}, "is missing"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_never_leads_out_of_its_folder(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = INDEXES[name]
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "a.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    (model / "model.safetensors.index.json").write_text(json.dumps(content))
    words = ["pack", str(folder / "base.safetensors"), str(model), "-o", str(tmp_path / "o.randes")]
    assert run(words) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
def test_what_is_no_file_is_refused_at_once(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    odd = tmp_path / "odd.safetensors"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        socket.socket(socket.AF_UNIX).bind(str(odd))
    words = ["pack", str(folder / "base.safetensors"), str(odd), "-o", str(tmp_path / "o.randes")]
    assert run(words) in (3, 74)
    assert "odd.safetensors" in capsys.readouterr().err
    assert run(["verify", str(odd)]) in (3, 74)
