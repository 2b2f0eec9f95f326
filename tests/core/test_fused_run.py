"""Compiled passes: every processor's version gives NumPy's numbers, and xxhash's digests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

from randes_cli.core.arrays import Raw
from randes_cli.core.compiled.kernel import FusedKernel, available, digest
from randes_cli.core.compiled.run import Chunk, Kind, Step, packed
from randes_cli.core.compiled.sample import Lies, read_deltas
from randes_cli.core.convert import narrow
from randes_cli.core.kernel import Kernel, NumpyKernel
from randes_cli.core.signs import SignRun, SignWindow, Window, sign_bits
from randes_cli.specs import ITEM_SIZE, Signs

if not available():
    pytest.skip("not compiled", allow_module_level=True)

ROWS, COLS = 70, 1033


def test_digests_are_those_of_xxhash(level: int) -> None:
    data = os.urandom(9000)
    for size in [*range(1, 1400), 2047, 2048, 2049, 4096, 8999, 9000]:
        for piece in (64, 1024, 4096) if size > 240 else (size,):
            assert digest(data[:size], piece) == xxhash.xxh3_128_digest(data[:size]), (level, size)


def values(seed: int, dtype: str, scale: float) -> Raw:
    """Stored values: a base of ones and a delta, heavy-tailed."""
    random = np.random.default_rng(seed)
    made = 1 + scale * random.standard_t(2, ROWS * COLS).astype(np.float32)
    out = np.empty(made.size * ITEM_SIZE[dtype], np.uint8)
    narrow(np.clip(made, -60, 60).astype(np.float32), dtype, out)
    return out


def window(signs: Signs, bits: bytes, start: int, count: int, scale: float) -> Window:
    """The signs of whole rows from element `start` on."""
    if signs is Signs.two_sided:
        return SignRun(bits, (ROWS, COLS), start, count, scale)
    rows = start // COLS, (start + count) // COLS
    return SignWindow(signs, bits, rows, (0, COLS), scale)


def slow(signs: Signs, dtypes: tuple[str, ...], inputs: list[Raw], scale: float) -> list[object]:
    """The sum, and what was added of each input, by NumPy's kernel."""
    kernel: Kernel = NumpyKernel(ROWS * COLS, 1)
    kernel.set_base(0, inputs[0], dtypes[0], ROWS * COLS)
    kernel.begin(ROWS * COLS, None, 16)
    found: list[object] = []
    for seed, (dtype, raw) in enumerate(zip(dtypes[1:], inputs[1:], strict=True)):
        bits = sign_bits(signs, seed, "t", ROWS, COLS)
        added = kernel.add(0, raw, dtype, window(signs, bits, 0, ROWS * COLS, scale))
        found += [added.energy, added.changed]
    codes, _ = kernel.finish(16)
    return [codes.tobytes(), *found]


@pytest.mark.parametrize("signs", list(Signs))
@pytest.mark.parametrize("scale", [2.0**7, 2.0**-30])
def test_a_chunk_in_one_call_is_what_numpy_makes_of_it(
    signs: Signs, scale: float, level: int, tmp_path: Path
) -> None:
    dtypes = ("BF16", "F32", "BF16", "F16")
    inputs = [values(n, dtype, 1e-3 if n else 1.0) for n, dtype in enumerate(dtypes)]
    path = tmp_path / "data"
    path.write_bytes(b"".join(raw.tobytes() for raw in inputs))
    fd = os.open(path, os.O_RDWR)
    end = path.stat().st_size
    steps, at = [Step(Kind.BASE, (fd, 0), "BF16", 0, (fd, end))], len(inputs[0])
    steps.append(Step(Kind.BEGIN, None, "16"))
    for seed, (dtype, raw) in enumerate(zip(dtypes[1:], inputs[1:], strict=True)):
        bits = sign_bits(signs, seed, "t", ROWS, COLS)
        steps.append(Step(Kind.ADD, (fd, at), dtype, 0, None, bits, scale))
        at += len(raw)
    steps.append(Step(Kind.STORE, None, "16", to=(fd, 2 * end)))
    kernel, rows = FusedKernel(ROWS * COLS, 1), packed(steps)
    assert rows is not None
    made = kernel.runner.run(Chunk(0, ROWS * COLS, COLS, (ROWS, COLS), signs), rows)
    assert made is not None, level
    codes, *found = slow(signs, dtypes, inputs, scale)
    assert os.pread(fd, 2 * ROWS * COLS, 2 * end) == codes
    assert os.pread(fd, len(inputs[0]), end) == inputs[0].tobytes()
    sums = made[["squares", "crossed", "rests", "changed"]][2:5].tolist()
    assert [x for m in sums for x in (m[:3], bool(m[3]))] == found
    digests = [row.tobytes() for row in made["digest"]]
    read = [digests[0], *digests[2:5]]
    assert read == [xxhash.xxh3_128_digest(raw.tobytes()) for raw in inputs]
    assert isinstance(codes, bytes)
    assert digests[5] == xxhash.xxh3_128_digest(codes)
    os.close(fd)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("to", [0, 16, 130, 2**16 - 2, 3 * 2**15 + 36, 2**17 - 300])
def test_strips_end_with_pieces_of_the_file_wherever_a_chunk_goes(
    to: int, dtype: str, tmp_path: Path
) -> None:
    raw, path, out = values(0, dtype, 1.0), tmp_path / "data", tmp_path / "out"
    raw = np.concatenate([raw, raw, raw])
    path.write_bytes(raw.tobytes())
    out.write_bytes(bytes(to))
    fd, into = os.open(path, os.O_RDONLY), os.open(out, os.O_RDWR)
    for count in (3 * ROWS * COLS, 2**16 + 1, 2**16, 300):
        os.ftruncate(into, to)
        size, kernel = count * ITEM_SIZE[dtype], FusedKernel(3 * ROWS * COLS, 1)
        rows = packed([Step(Kind.BASE, (fd, 0), dtype, 0, (into, to))])
        assert rows is not None
        made = kernel.runner.run(Chunk(0, count, COLS, (3 * ROWS, COLS), Signs.none), rows)
        assert made is not None
        assert out.read_bytes() == bytes(to) + raw.tobytes()[:size]
        assert made["digest"][0].tobytes() == xxhash.xxh3_128_digest(raw[:size].data)
    os.close(fd)
    os.close(into)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_sum_that_stays_in_memory_has_its_squares(bits: int, level: int, tmp_path: Path) -> None:
    raw = values(0, "F32", 1.0)
    path = tmp_path / "data"
    path.write_bytes(raw.tobytes())
    fd, first, cols = os.open(path, os.O_RDWR), 1500, 601  # a view whose rows are others
    count, kernel = ROWS * COLS - first, FusedKernel(ROWS * COLS, 1)
    chunk = Chunk(first, count, COLS, (-(-ROWS * COLS // cols), cols), Signs.none)
    rows = -(-(first + count) // cols) - first // cols
    codes = [np.zeros(count * bits // 8, np.uint8) for _ in range(2)]
    found = [(np.zeros(rows, np.int64), np.zeros((1, cols), np.int64)) for _ in range(2)]
    add = Step(Kind.ADD, (fd, 4 * first), "F32", scale=2.0 ** (bits - 11))
    places: list[Raw | tuple[int, int]] = [codes[0], (fd, len(raw))]
    for to, squares in zip(places, found, strict=True):
        store = Step(Kind.STORE, None, str(bits), to=to, squares=squares)
        begin = [Step(Kind.BASE, None, "F32"), Step(Kind.BEGIN, None, str(bits))]
        rows_of = packed([*begin, add, store])
        assert rows_of is not None
        assert kernel.runner.run(chunk, rows_of) is not None, level
    codes[1][:] = np.frombuffer(os.pread(fd, len(codes[1]), len(raw)), np.uint8)
    os.close(fd)
    units = codes[0].view(np.int8 if bits == 8 else np.int16).astype(np.int64)
    whole = np.zeros((first // cols + rows) * cols, np.int64)
    whole[first : first + count] = units**2
    matrix = whole.reshape(-1, cols)[first // cols :]
    assert units.any()
    assert (codes[0] == codes[1]).all()
    for along, across in found:
        assert along.tolist() == matrix.sum(axis=1).tolist()
        assert across[0].tolist() == matrix.sum(axis=0).tolist()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sum_is_stored_up_to_the_limit_of_its_bits(
    bits: int, sign: float, tmp_path: Path
) -> None:
    most = 2 ** (bits - 1) - 1
    kernel, codes = FusedKernel(64, 1), np.zeros(bits // 8, np.uint8)
    path = tmp_path / "data"
    path.write_bytes(np.array([most // 2, most // 2 + 1, most // 2 + 2], np.float32).tobytes())
    with path.open("rb") as file:
        for at, fits in ((4, True), (8, False)):
            both = [(file.fileno(), 0), (file.fileno(), at)]
            adds = [Step(Kind.ADD, place, "F32", scale=sign) for place in both]
            begin = [Step(Kind.BASE, None, "F32"), Step(Kind.BEGIN, None, str(bits))]
            rows = packed([*begin, *adds, Step(Kind.STORE, None, str(bits), to=codes)])
            assert rows is not None
            made = kernel.runner.run(Chunk(0, 1, 1, (1, 1), Signs.none), rows)
            assert (made is not None) is fits
            assert not fits or codes.view(f"i{bits // 8}")[0] == sign * most


def test_a_change_is_seen_wherever_in_a_chunk_it_is(tmp_path: Path) -> None:
    path, kernel = tmp_path / "data", FusedKernel(64, 1)
    for at in (3, 299):
        numbers = np.zeros(300, np.float32)
        numbers[at] = 2.0**-30  # less than half a part of a step
        path.write_bytes(numbers.tobytes())
        with path.open("rb") as file:
            begin = [Step(Kind.BASE, None, "F32"), Step(Kind.BEGIN, None, "16")]
            rows = packed([*begin, Step(Kind.ADD, (file.fileno(), 0), "F32", scale=1.0)])
            assert rows is not None
            made = kernel.runner.run(Chunk(0, 300, 60, (5, 60), Signs.none), rows)
        assert made is not None
        assert made[["squares", "rests", "changed"]][2].tolist() == (0, 0, 1)


def test_what_does_not_fit_its_grid_is_left_to_who_can_say_so(level: int, tmp_path: Path) -> None:
    raw = values(0, "F32", 1.0)
    path = tmp_path / "data"
    path.write_bytes(raw.tobytes())
    fd = os.open(path, os.O_RDONLY)

    def add(scale: float, at: int = 0, count: int = ROWS * COLS) -> object:
        chunk = Chunk(0, count, count, (1, count), Signs.none)
        steps = [Step(Kind.BASE, None, "F32"), Step(Kind.BEGIN, None, "16")]
        rows = packed([*steps, Step(Kind.ADD, (fd, at), "F32", scale=scale)])
        assert rows is not None
        kernel = FusedKernel(count // 3, 1)
        return kernel.runner.run(chunk, rows)

    assert add(2.0**4) is not None, level
    assert add(2.0**12) is None
    assert add(2.0**4, at=4) is None  # the file ends early
    assert add(2.0**4, count=300) is not None
    assert add(2.0**4, count=240) is None  # digests of so few bytes are of one piece
    os.close(fd)


def test_a_sample_that_ends_early_or_is_of_another_dtype_is_left_to_others(
    tmp_path: Path,
) -> None:
    numbers = np.arange(100, dtype=np.float32)
    path = tmp_path / "data"
    path.write_bytes(numbers.tobytes())
    with path.open("rb") as file:
        lies = [Lies((file.fileno(), at), "F32") for at in (0, 40, 44)]
        runs, zero = [(0, 10), (50, 40)], Lies(None, "F32")
        found = read_deltas(runs, zero, lies[:2])
        assert found is not None
        chosen = np.concatenate([numbers[:10], numbers[50:90]])
        assert found.tolist() == [chosen.tolist(), (chosen + 10).tolist()]
        assert read_deltas(runs, lies[0], lies) is None
        assert read_deltas(runs, zero, [lies[0]._replace(dtype="F64")]) is None
