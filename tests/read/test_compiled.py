"""Pieces that compiled code retrieves whole are those that NumPy retrieves, checks and all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import PackOptions, Transform, errors, pack, seal
from randes_cli.core.arrays import Raw
from randes_cli.core.compiled.kernel import FusedKernel, available
from randes_cli.core.convert import numpy_dtype
from randes_cli.core.kernel import NumpyKernel
from randes_cli.core.signs import SignWindow
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import bank_base
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import Signs
from tests.checkpoints import perturbed, random_state, save
from tests.hostile.small import contents, forge

if not available():
    pytest.skip("not compiled", allow_module_level=True)

#: Larger than a strip and a chunk; of 1 to 8 bits, chunks of codes end inside its pieces. One is as
#: long as two strips of 960 elements.
SHAPES = {
    "wide.weight": [1030, 2077],
    "layers.0.weight": [70, 1033],
    "layers.1.weight": [70, 1033],
    "norm.weight": [1033],
    "zero.weight": [1920],
}
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
ELEMENTS = 2**17


def bank(
    folder: Path, kind: str, preset: str, bits: int | None = None, live_bits: int = 16
) -> Path:
    """A bank of two tasks, with a positive tensor that noise turns, and one that is 0 somewhere."""
    base = random_state(SHAPES, dtype=DTYPES[kind])
    for name in ("norm.weight", "zero.weight"):
        base[name] = base[name].abs() / 256 + 2**-6
    base["norm.weight"][900:] += 8  # noise turns its beginning alone
    base["zero.weight"][7] = 0
    base["wide.weight"][0, 0] = 6e4 if kind == "F16" else 7e4  # beyond float16
    paths = [save(base, folder / "base.safetensors")]
    for seed in range(2):
        paths.append(save(perturbed(base, seed=seed, scale=0.02), folder / f"t{seed}.safetensors"))
    live, sealed = folder / "live.randes", folder / "sealed.randes"
    options = PackOptions(transform=Transform.from_preset(preset), bits=live_bits)
    pack(paths[0], [f"a={paths[1]}", f"b={paths[2]}"], live, options)
    if bits is None:
        return live
    seal(live, sealed, bits)
    return sealed


def retrieved(
    path: Path, kernel: NumpyKernel, *, dtype: str | None = None, force: bool = False
) -> tuple[dict[str, bytes], tuple[str, ...], int, set[str]]:
    """A task's tensors, those that turned, values beyond the dtype, what is damaged."""
    with BankFile(path) as file, bank_base(file) as base:
        found = Retrieval(file, base, file.task("a"), coefficient=1.5, dtype=dtype, force=force)
        made = {}
        for name, tensor in found.tensors.items():
            out = np.empty(tensor.nbytes, np.uint8)
            for piece in found.pieces(name):
                found.fill(kernel, piece, out[piece.start :][: piece.nbytes])
            made[name] = out.tobytes()
        return made, found.turned.names, found.saturated, found.damaged


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize(
    ("preset", "bits", "live_bits"),
    [
        ("hankel", None, 16),
        ("two-sided", None, 8),
        ("rsf", 8, 16),
        ("srsf", 4, 16),
        ("ta", 3, 8),
        ("hankel", 1, 16),
    ],
)
def test_one_call_gives_what_numpy_gives_in_every_dtype(
    kind: str, preset: str, bits: int | None, live_bits: int, tmp_path: Path
) -> None:
    path = bank(tmp_path, kind, preset, bits, live_bits)
    for dtype in (None, "F16", "F32"):
        found = retrieved(path, NumpyKernel(ELEMENTS, 1), dtype=dtype)
        assert found[1:3] == (("norm.weight",), int(dtype == "F16" and kind != "F16"))
        for elements in (ELEMENTS, 2**10):
            assert found == retrieved(path, FusedKernel(elements, 1), dtype=dtype)


def test_a_file_gets_the_bytes_that_memory_gets(
    tmp_path: Path,
) -> None:
    path, kernel = bank(tmp_path, "BF16", "hankel", 2), FusedKernel(ELEMENTS, 1)
    with BankFile(path) as file, bank_base(file) as base, (tmp_path / "out").open("w+b") as out:
        found = Retrieval(file, base, file.task("b"))
        for name in found.tensors:
            start, pieces = out.seek(0, 2), found.pieces(name)
            for piece in pieces:
                assert found.send(kernel, piece, (out.fileno(), start + piece.start))
            out.seek(start)
            assert out.read() == found.read(name).tobytes()


def read_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes of each tensor of the bank that Python reads when a task is retrieved."""
    found: Counter[str] = Counter()
    plain = BankFile.read_into

    def counted(self: BankFile, key: str, start: int, out: Raw) -> None:
        found[key] += len(out)
        plain(self, key, start, out)

    with monkeypatch.context() as patch:
        patch.setattr(BankFile, "read_into", counted)
        retrieved(path, FusedKernel(ELEMENTS, 1))
    return found


def test_codes_and_scales_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bank(tmp_path, "BF16", "hankel", 4)
    found = read_bytes(path, monkeypatch)
    with BankFile(path) as file:
        sealed = [key for key in file.header.tensors if key.startswith(("sum/", "scale/"))]
        sealed = [key for key in sealed if "norm" not in key and "zero" not in key]
        whole = {key: file.info(key).nbytes for key in sealed}
        assert {key: found[key] for key in whole} == whole


@pytest.mark.parametrize("bits", [None, 2])
@pytest.mark.parametrize("kind", ["base", "sum"])
def test_damage_is_found_in_one_call_as_it_is_strip_by_strip(
    bits: int | None, kind: str, tmp_path: Path
) -> None:
    path = bank(tmp_path, "BF16", "hankel", bits)
    with BankFile(path) as file:
        key = next(key for key in file.header.tensors if key.startswith(kind) and "wide" in key)
        at = file.header.starts[key] + file.info(key).nbytes - 1000
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.BankDamaged, match=key):
        retrieved(path, FusedKernel(ELEMENTS, 1))
    fast = retrieved(path, FusedKernel(ELEMENTS, 1), force=True)
    assert fast == retrieved(path, NumpyKernel(ELEMENTS, 1), force=True)
    assert fast[3] == {key}


@pytest.mark.parametrize("kind", DTYPES)
def test_an_infinite_value_of_a_forged_base_is_found(kind: str, tmp_path: Path) -> None:
    tensors, data, manifest = contents(bank(tmp_path, kind, "hankel"))
    forged = np.array([np.inf], numpy_dtype(kind)).tobytes()
    data["base/wide.weight"] = forged + data["base/wide.weight"][len(forged) :]
    path = forge(tmp_path / "forged.randes", tensors, data, json.dumps(manifest).encode())
    for kernel in (FusedKernel, NumpyKernel):
        with pytest.raises(errors.BankDamaged, match="base/wide"):
            retrieved(path, kernel(ELEMENTS, 1))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_values_beyond_a_dtype_become_its_largest(dtype: str) -> None:
    random = np.random.default_rng(3)
    base = (random.standard_normal(4096) * 2.0 ** random.integers(-30, 20, 4096)).astype(np.float32)
    codes = random.integers(-(2**15), 2**15, 4096).astype(np.int16).view(np.uint8)
    found = []
    for kernel in (NumpyKernel(4096, 1), FusedKernel(4096, 1)):
        for scale in (2.0**-20, 2.0**-9, 4.0, 2.0**114):
            out = np.empty(4096 * (4 if dtype == "F32" else 2), np.uint8)
            kernel.set_base(0, base.view(np.uint8), "F32", 4096)
            window = SignWindow(Signs.none, b"", (0, 1), (0, 4096), scale)
            found.append((kernel.retrieve(codes, 16, window, dtype, out), out.tobytes()))
    assert found[:4] == found[4:]
    assert found[3][0] > 0
