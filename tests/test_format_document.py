"""docs/bank-format.md says what the program does: constants, vectors, the example's bytes."""

from __future__ import annotations

import json
import re
from math import log10
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli.core.grid import EXPONENT_RANGE, LIMIT
from randes_cli.core.levels import SEAL_BITS, levels
from randes_cli.core.share import Share
from randes_cli.core.shuffle import layer_order
from randes_cli.core.signs import random_bytes
from randes_cli.files.bank import entries, shards
from randes_cli.files.bank import keys as bank_keys
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import FEATURES, decode, encode
from randes_cli.files.digests import digest
from randes_cli.limits import (
    LIMITS,
    LONGEST_NAME,
    LONGEST_TEXT,
    MOST_COEFFICIENT,
    MOST_HEADER,
    MOST_MANIFEST,
    MOST_SCORE,
    MOST_STATISTIC,
)
from randes_cli.plan import CHUNK_ELEMENTS, Rect, plan_units
from randes_cli.specs import BaseStorage, Rest, Shuffle, Signs, TensorInfo, Transform
from tests.bank_example import BASE, TASKS, example_bank, hex_lines
from tests.checkpoints import retrieve
from tests.oracle import stream, stream_bits

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = (DOCS / "bank-format.md").read_text("utf-8")
EXAMPLE = DOCS / "worked-example.txt"


def rows_of(section: str) -> list[list[str]]:
    """The cells of every table row of a section, code marks removed."""
    body = re.split(r"^## ", DOCUMENT, flags=re.M)
    text = next(part for part in body if section in part.splitlines()[0])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_example_s_bytes_are_those_that_are_packed(tmp_path: Path) -> None:
    printed = EXAMPLE.read_text("utf-8")
    assert printed.splitlines() == hex_lines(example_bank(tmp_path))


def test_the_printed_example_can_be_typed_in_and_opened(tmp_path: Path) -> None:
    printed = EXAMPLE.read_text("utf-8").splitlines()
    data = bytearray(int(printed[-1], 16))
    last, line = 0, b""
    for row in printed[:-1]:
        if row == "*":
            continue
        start = int(row[:8], 16)
        for gap in range(last, start, 16):
            data[gap : gap + 16] = line
        line = bytes.fromhex(row[10:58].replace(" ", ""))
        data[start : start + len(line)] = line
        last = start + 16
    path = tmp_path / "typed.randes"
    path.write_bytes(data)
    for task in TASKS:
        assert retrieve(path, task)["w"].shape == (2, 3)


def test_the_example_s_sum_follows_from_its_streams(tmp_path: Path) -> None:
    example_bank(tmp_path)
    total = np.zeros((2, 3), int)
    for seed, values in zip((42, 43), TASKS.values(), strict=True):
        bits = stream_bits(seed, "w", 5)
        assert "".join(map(str, bits)) in DOCUMENT
        delta = (np.array(values) - np.array(BASE)).reshape(2, 3) * 256
        flips = np.array([[bits[i] ^ bits[2 + j] for j in range(3)] for i in range(2)])
        total += np.where(flips, -delta, delta).astype(int)
    with BankFile(tmp_path / "example.randes") as opened:
        assert opened.read("sum/0/w").view(np.int16).tolist() == total.reshape(-1).tolist()
    said = " / ".join(" ".join(map(str, row)) for row in total).replace("-", "−")
    assert f"S = {said}." in DOCUMENT


def test_stream_vectors_of_the_document_are_those_of_the_code() -> None:
    found = re.findall(
        r"^\| `randes/1\|(.*?)\|(\d+)\|(.*?)` \| `([0-9a-f]{32})` \|$",
        DOCUMENT.replace("\\|", "|"),
        re.M,
    )
    assert len(found) >= 5
    for kind, seed, name, vector in found:
        assert random_bytes(kind, int(seed), name, 16).hex() == vector
        assert stream(kind, int(seed), name, 16).hex() == vector


def test_vectors_of_two_sided_signs_are_those_of_the_code() -> None:
    found = re.findall(r"^\| shape (\[.*?\]) \| (\d+) × (\d+) \| (.*) \|$", DOCUMENT, re.M)
    assert len(found) == 3
    for shape, rows, cols, cells in found:
        signs = [list(cell.strip().replace("−", "-")) for cell in cells.split("|")]
        down, across, *lines = (line for line in signs if line)
        tensor = TensorInfo("layers.0.weight", "F32", tuple(json.loads(shape)))
        unit = plan_units([tensor], Transform(signs=Signs.two_sided))[0]
        assert unit.view == (int(rows), int(cols)) == (len(down), len(across))
        whole = Rect(0, unit.rows, 0, unit.cols, unit.cols)
        made = unit.window(unit.flips(42, 0), whole, 1.0).values().reshape(unit.view)
        written = [["+" if v > 0 else "-" for v in row] for row in made[:2]]
        assert written == lines
        assert made[:, 0].tolist() == [1 if s == across[0] else -1 for s in down]


def test_vectors_of_shares_are_those_of_the_code() -> None:
    found = re.findall(r"^\| (\d+) × (\d+) \| (\d) \| (\d) \| ([\d ·/]+) \|$", DOCUMENT, re.M)
    assert len(found) == 3
    for rows, cols, every, group, stored in found:
        share = Share(int(rows), int(cols), int(every), int(group))
        held = share.take(np.arange(1, share.rows * share.cols + 1), 0).reshape(share.shape)
        said = [[0 if e == "·" else 1 + int(e) for e in row.split()] for row in stored.split("/")]
        assert held.tolist() == said


def test_shuffle_vectors_of_the_document_are_those_of_the_code() -> None:
    found = re.findall(r"^\| seed (\d+) \| ([\d ]+) \|$", DOCUMENT, re.M)
    assert len(found) == 2
    for seed, order in found:
        assert list(map(int, order.split())) == layer_order(
            Shuffle.random, seed=int(seed), index=0, layer_kind="layers.*.weight", layers=8
        )


def test_names_of_tensors_are_those_of_the_code() -> None:
    names = {row[0].strip("`") for row in rows_of("2. Tensors")[2:]}
    assert names == {
        bank_keys.base_key("<tensor>"),
        bank_keys.cut_key("<group>"),  # type: ignore[arg-type]
        bank_keys.sum_key("<group>", "<tensor>"),  # type: ignore[arg-type]
        bank_keys.scale_key("<group>", "<tensor>"),  # type: ignore[arg-type]
        bank_keys.own_key("<task>", "<tensor>"),
        bank_keys.file_key("<digest>"),
        bank_keys.NORMS,
        bank_keys.ROUNDED,
        bank_keys.TAILS,
        bank_keys.FORGOTTEN,
        bank_keys.GRAM,
        bank_keys.BASE_DIGESTS,
        bank_keys.MANIFEST,
        bank_keys.CHECKS,
        "align/<n>",
    }
    assert str(entries.METADATA).replace("'", '"') in DOCUMENT
    assert str(shards.SHARD_METADATA).replace("'", '"') in DOCUMENT
    assert {row[0].strip("`") for row in rows_of("15. A bank in shards")[2:6]} == {
        shards.SHARDS,
        shards.shard_key("<digest>"),
        bank_keys.MANIFEST,
        bank_keys.CHECKS,
    }


def test_fields_of_the_manifest_are_those_of_the_code(tmp_path: Path) -> None:
    example_bank(tmp_path)
    with BankFile(tmp_path / "example.randes") as opened:
        manifest = opened.manifest
    written = manifest.to_json()
    paths = {
        f"{key}.{inner}" if key in ("transform", "base", "stats") else key
        for key, value in written.items()
        for inner in (value if isinstance(value, dict) else [key])
    } - {"steps.w"}
    rows = rows_of("3. Manifest")
    documented = {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row[0])}
    optional = {
        "dtype",
        "prefix",
        "unprefixed",
        "layout",
        "files",
        "left_out",
        "pickle",
        "ties",
        "base.ties",
        "base.layout",
        "base.left_out",
        "base.pickle",
        "coefficient",
        "transform.matched",
        "transform.exact",
        "sealed",
        "shares",
        "tuning",
    }
    paths = {"steps" if p.startswith("steps.") else p for p in paths} | {"steps", "widths"}
    assert documented == paths | set(written["tasks"][0]) | optional
    for values in (Shuffle, Signs, Rest, BaseStorage):
        assert all(f"`{member.value}`" in DOCUMENT for member in values)
    assert all(f"`{feature}`" in DOCUMENT for feature in FEATURES)


def power(number: int) -> str:
    return f"2^{number.bit_length() - 1}"


def ten(number: float) -> str:
    return f"±10^{round(log10(number))}"


def test_limits_are_those_of_the_code() -> None:
    limits = {row[0]: row[1] for row in rows_of("9. Limits")[2:]}
    assert limits["header"] == f"{MOST_HEADER:,} bytes".replace(",", " ")
    assert limits["one rounded delta, and a 16-bit sum"] == f"±{LIMIT[16]} steps"
    assert limits["an 8-bit sum"] == f"±{LIMIT[8]} steps"
    low, high = EXPONENT_RANGE
    assert limits["step exponent"] == f"{low} … {high}".replace("-", "−")
    assert limits["task index"] == power(LIMITS["index"].most + 1) + " − 1"
    assert limits["groups"] == power(LIMITS["groups"].most)
    assert limits["capacity"] == power(LIMITS["capacity"].most)
    assert limits["manifest"] == f"{power(MOST_MANIFEST)} bytes"
    assert limits["a tensor's name"] == f"{LONGEST_NAME} characters"
    assert limits["a text that is shown"] == f"{LONGEST_TEXT} characters"
    assert limits["a value of `stats/`"] == ten(MOST_STATISTIC)
    assert limits["λ, and a score of `tuning`"] == f"{ten(MOST_COEFFICIENT)}, {ten(MOST_SCORE)}"
    assert limits["chunk"] == f"{CHUNK_ELEMENTS} elements"


def test_checks_hold_the_digests_in_the_order_of_the_document(tmp_path: Path) -> None:
    data = example_bank(tmp_path)
    with BankFile(tmp_path / "example.randes") as opened:
        header = opened.header
    checks = data[header.starts["checks"] :]
    expected = digest(data[: header.size])
    for name, tensor in header.tensors.items():
        if name != "checks":
            start = header.starts[name]
            expected += digest(data[start : start + tensor.nbytes])
    assert checks == expected + digest(expected)


def test_every_byte_of_a_bank_is_covered_by_a_digest(tmp_path: Path) -> None:
    from randes_cli.errors import RandesError

    data, path = example_bank(tmp_path), tmp_path / "example.randes"
    with BankFile(path) as opened:
        manifest = opened.header.starts["manifest"]
    for position in [*range(0, 1344, 61), *range(manifest, len(data), 29), len(data) - 1]:
        broken = bytearray(data)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(RandesError):
            BankFile(path)


def test_a_manifest_is_written_as_it_was_read(tmp_path: Path) -> None:
    example_bank(tmp_path)
    with BankFile(tmp_path / "example.randes") as opened:
        text = opened.read_whole("manifest").tobytes()
    made = decode(text)
    assert made.extra == {}
    assert encode(made) == text
    more = text[:-1] + b',"colour":{"deep":[1]}}'
    assert encode(decode(more)) == more


def test_the_example_returns_its_tasks(tmp_path: Path) -> None:
    """Each retrieval is its task plus what the other one leaves: ±0.25 and ±0.5."""
    example_bank(tmp_path)
    for task, values in TASKS.items():
        left = retrieve(tmp_path / "example.randes", task)["w"] - torch.tensor(values).view(2, 3)
        others = next(v for name, v in TASKS.items() if name != task)
        expected = (torch.tensor(others) - torch.tensor(BASE)).view(2, 3).abs()
        assert torch.equal(left.abs(), expected)


@pytest.mark.parametrize("page", ["bank-format.md", "sealed.md"])
def test_no_value_is_defined_by_a_source_file(page: str) -> None:
    assert re.findall(r"[\w/]+\.(?:py|c)\b", (DOCS / page).read_text("utf-8")) == []


def test_the_levels_of_the_document_are_those_of_the_code() -> None:
    table = (DOCS / "sealed.md").read_text("utf-8").split("```levels\n")[1].split("```")[0]
    _, *parts = re.split(r"levels (\d+)\n", table)
    assert tuple(map(int, parts[::2])) == SEAL_BITS
    for bits, words in zip(SEAL_BITS, parts[1::2], strict=True):
        half = np.array([int(word, 16) for word in words.split()], np.uint32).view(np.float32)
        assert np.array_equal(np.concatenate([-half[::-1], half]), levels(bits))
