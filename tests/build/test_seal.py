"""Sealed banks: bytes, retrieval, predictions, and what may still be done to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.build.seal.seal import _Sealing, seal
from randes_cli.core.codes import encode, fit_scales, inverse_scales, multiply_scales, pack_codes
from randes_cli.core.levels import DISTORTION, SEAL_BITS, levels
from randes_cli.errors import BankDamaged, NewerFormat
from randes_cli.files.bank import manifest
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import cut_key, scale_key, sum_key
from randes_cli.files.bank.writer import BankWriter
from randes_cli.ops.measure import measure
from randes_cli.ops.verify import verify
from randes_cli.plan import seal_matrix, sealable
from randes_cli.specs import TensorInfo
from tests.build.sealing import ONE, SHAPES, TWICE, packed, sums
from tests.checkpoints import random_state, same_bits, save


def slow_steps(bank: BankFile, name: str, bits: int) -> np.ndarray:
    """A sealed superposition in steps, code by code, from the stored bytes."""
    tensor = bank.manifest.base.tensors[name]
    rows, cols = seal_matrix(tensor)
    both = bank.read(scale_key(0, name)).view(np.float16).astype(np.float32)
    whole = int.from_bytes(bank.read(sum_key(0, name)).tobytes(), "little")
    made = np.empty((rows, cols), np.float32)
    for place in range(rows * cols):
        row, col = divmod(place, cols)
        level = levels(bits)[whole >> (bits * place) & (2**bits - 1)]
        made[row, col] = level * both[rows + col] * both[row]
    return made.reshape(tensor.shape)


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_a_sealed_task_is_the_base_and_the_decoded_sum_under_its_signs(
    folder: Path, bits: int
) -> None:
    bank = packed(folder, 3, PackOptions(Transform.from_preset("ta")))
    out = folder / "sealed.randes"
    seal(bank, out, bits, ONE)
    base = random_state(SHAPES, seed=1)
    with BankFile(out) as file, Bank.open(out) as opened:
        found = opened.retrieve("t1", coefficient=1.0)
        for name in ("a.0.weight", "odd.weight", "conv.weight"):
            step = np.float32(2.0 ** file.manifest.steps[name])
            wanted = base[name] + torch.from_numpy(slow_steps(file, name, bits) * step)
            assert torch.equal(found[name], wanted)


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_what_became_of_each_sum_is_measured_to_the_byte(folder: Path, bits: int) -> None:
    bank, out = packed(folder, 3), folder / "sealed.randes"
    seal(bank, out, bits, ONE)
    with BankFile(bank) as live, BankFile(out) as file:
        names = list(live.manifest.base.tensors)
        found = dict(zip(names, file.floats(cut_key(0)).T.tolist(), strict=True))
        assert found["norm.weight"] == found["thin.weight"] == [0, 0, 0]
        for name in set(names) - {"norm.weight", "thin.weight"}:
            units = live.read(sum_key(0, name)).view(np.int16).tolist()
            height = seal_matrix(live.manifest.base.tensors[name])[0]
            scales = file.read(scale_key(0, name)).view(np.float16).astype(float)
            most = float(levels(bits)[-1]) * scales[:height].max() * scales[height:].max()
            part = next(p for p in range(-60, 60) if 2.0 ** (p + 19) > most)
            read = (slow_steps(file, name, bits).reshape(-1) * np.float32(2.0**-part)).tolist()
            counts = [round(value) for value in read]
            sums = (
                sum(unit * unit for unit in units),
                sum(unit * count for unit, count in zip(units, counts, strict=True)),
                sum(count * count for count in counts),
            )
            step = live.manifest.steps[name]
            powers = (2 * step, 2 * step + part, 2 * step + 2 * part)
            assert found[name] == [s * 2.0**p for s, p in zip(sums, powers, strict=True)]


def test_vectors_and_thin_matrices_stay_live_and_come_back_as_before(folder: Path) -> None:
    bank = packed(folder, 3)
    out = folder / "sealed.randes"
    seal(bank, out, 2, ONE)
    with BankFile(out) as file:
        kinds = {n: file.info(sum_key(0, n)).dtype for n in SHAPES}
    assert kinds == {n: "I16" if n in ("norm.weight", "thin.weight") else "U8" for n in SHAPES}
    with Bank.open(bank) as live, Bank.open(out) as sealed:
        before, after = live.retrieve("t0"), sealed.retrieve("t0")
    assert same_bits(before["norm.weight"], after["norm.weight"])
    assert not same_bits(before["a.0.weight"], after["a.0.weight"])


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_the_predicted_cosine_counts_the_cut(folder: Path, bits: int) -> None:
    bank = packed(folder, 4, name="live")
    report = seal(bank, folder / "sealed.randes", bits, ONE)
    task = report.after[0].predicted_cosine
    assert task == pytest.approx(
        report.before[0].predicted_cosine * (1 - DISTORTION[bits]) ** 0.5, rel=0.02
    )
    with BankFile(folder / "sealed.randes") as file:
        check = measure(file, {"t0": str(folder / "t0.safetensors")}, ONE)[0]
    assert check.cosine == pytest.approx(task, rel=0.05)


@pytest.mark.parametrize("bits", [2, 3])
def test_bytes_do_not_depend_on_threads_or_strips(folder: Path, bits: int) -> None:
    bank = packed(folder, 3)
    made = []
    for number, run in enumerate(
        (ONE, RunOptions(threads=3), RunOptions(threads=1, strip_elements=24), TWICE)
    ):
        out = folder / f"s{number}.randes"
        seal(bank, out, bits, run)
        made.append(out.read_bytes())
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    ("run", "bits"),
    [
        *((RunOptions(strip_elements=strip), 3) for strip in (1, 7, 40, 1000)),
        (RunOptions(device="cpu-torch"), 2),
    ],
)
def test_retrieval_does_not_depend_on_the_strip_or_the_backend(
    folder: Path, run: RunOptions, bits: int
) -> None:
    bank = packed(folder, 3, PackOptions(Transform.from_preset("srsf")))
    seal(bank, folder / "s.randes", bits, ONE)
    with (
        Bank.open(folder / "s.randes") as plain,
        Bank.open(folder / "s.randes", run=run) as other,
    ):
        wanted, found = plain.retrieve("t2"), other.retrieve("t2")
    assert all(same_bits(wanted[name], found[name]) for name in wanted)


def test_packing_at_two_bits_is_packing_and_then_sealing(folder: Path) -> None:
    seal(packed(folder, 3), folder / "sealed.randes", 2, ONE)
    direct = packed(folder, 3, PackOptions(bits=2), "direct")
    assert direct.read_bytes() == (folder / "sealed.randes").read_bytes()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_damage_in_codes_or_scales_is_found_where_it_hurts(folder: Path) -> None:
    bank = packed(folder, 4, PackOptions(bits=2, groups=2))
    for key in (sum_key(1, "a.0.weight"), scale_key(1, "odd.weight")):
        with BankFile(bank) as file:
            start = file.header.starts[key]
        data = bytearray(bank.read_bytes())
        data[start + 3] ^= 1
        hurt = folder / "hurt.randes"
        hurt.write_bytes(data)
        with BankFile(hurt) as file:
            report = verify(file, ONE)
        assert report.damaged == (key,)
        assert (sorted(report.hurt), report.whole) == (["t1", "t3"], ("t0", "t2"))
        with Bank.open(hurt) as opened:
            opened.retrieve("t0")
            with pytest.raises(BankDamaged, match=key):
                opened.retrieve("t1")


def test_a_reader_without_the_feature_refuses_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = packed(folder, 2, PackOptions(bits=4))
    monkeypatch.setattr(manifest, "FEATURES", frozenset({"superposition"}))
    with pytest.raises(NewerFormat, match="sealed"):
        BankFile(bank)


def test_uneven_rows_and_columns_keep_their_quality(folder: Path) -> None:
    random = torch.Generator().manual_seed(5)
    rows, cols = (torch.randn(n, generator=random).mul(0.6).exp() for n in (300, 120))
    base = {"w": torch.zeros(300, 120)}
    save(base, folder / "base.safetensors")
    for number in range(5):
        delta = torch.randn(300, 120, generator=random) * rows[:, None] * cols
        save({"w": delta}, folder / f"t{number}.safetensors")
    live = packed(folder, 4)
    seal(live, folder / "s.randes", 2, ONE)
    sources = {f"t{n}": folder / f"t{n}.safetensors" for n in range(4)}
    with BankFile(live) as before, BankFile(folder / "s.randes") as after:
        pairs = zip(measure(after, sources, ONE), measure(before, sources, ONE), strict=True)
    ratio = np.mean([cut.cosine / whole.cosine for cut, whole in pairs])
    assert ratio == pytest.approx((1 - DISTORTION[2]) ** 0.5, abs=0.015)


def test_the_squarest_view_of_a_tensor_gets_the_scales() -> None:
    assert seal_matrix(TensorInfo("conv", "F32", (64, 32, 3, 3))) == (64, 288)
    assert seal_matrix(TensorInfo("experts", "F32", (8, 1024, 4096))) == (8192, 4096)
    assert seal_matrix(TensorInfo("w", "F32", (30, 70))) == (30, 70)
    assert not sealable(TensorInfo("norm", "F32", (4096,)))
    assert not sealable(TensorInfo("pair", "F32", (2, 4096)))
    assert sealable(TensorInfo("w", "F32", (32, 32)))
    assert not sealable(TensorInfo("ids", "I64", (64, 64)))


@pytest.mark.parametrize(("bits", "width"), [(3, 16), (8, 16), (3, 8)])
def test_codes_are_those_of_all_values_at_once_where_chunks_lie_across_the_jobs(
    tmp_path: Path, bits: int, width: int
) -> None:
    """8.4 million elements in rows of 2,001: chunks and jobs begin at other places.

    Of 16 bits they are more than a thread holds, of 8 they are read once.
    """
    shape = (4201, 2001)
    base = torch.zeros(shape, dtype=torch.float16)
    random = torch.Generator().manual_seed(1)
    save({"w": base}, tmp_path / "base.safetensors")
    task = torch.randn(shape, generator=random).half() * 0.01
    save({"w": task}, tmp_path / "t.safetensors")
    bank = tmp_path / "b.randes"
    tasks = [TaskInput("t", tmp_path / "t.safetensors")]
    pack(tmp_path / "base.safetensors", tasks, bank, PackOptions(bits=width), ONE)
    seal(bank, tmp_path / "s.randes", bits, RunOptions(threads=2))
    with BankFile(bank) as live, BankFile(tmp_path / "s.randes") as sealed:
        kept = live.read_whole(sum_key(0, "w")).view(f"i{width // 8}")
        units = kept.astype(np.int64).reshape(shape)
        scales = fit_scales(np.square(units).sum(1), np.square(units).sum(0), bits)
        values = units.astype(np.float32).reshape(-1)
        along, across = inverse_scales(*scales, bits)
        multiply_scales(values, 0, along, across[None])
        expected = pack_codes(encode(values, bits), bits)
        assert sealed.read_whole(sum_key(0, "w")).tobytes() == expected.tobytes()
        stored = sealed.read_whole(scale_key(0, "w")).tobytes()
        assert stored == np.concatenate(scales).astype("<f2").tobytes()


def test_a_sum_that_changes_between_the_passes_is_damage_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, out = packed(folder, 3), folder / "sealed.randes"
    sound = bank.read_bytes()
    with BankFile(bank) as file:
        starts = {key: file.header.starts[key] for key in sums(bank, 0)}
        cut = [key for key in starts if "norm" not in key and "thin" not in key]
        last = {key: starts[key] + file.info(key).nbytes - 1 for key in cut}
    real = _Sealing._write_scales
    for key in cut:
        for place in (starts[key], last[key]):

            def between(sealing: _Sealing, writer: BankWriter, place: int = place) -> None:
                with bank.open("r+b") as file:
                    file.seek(place)
                    file.write(bytes([sound[place] ^ 1]))
                real(sealing, writer)

            monkeypatch.setattr(_Sealing, "_write_scales", between)
            for target in (out, None):
                bank.write_bytes(sound)
                with pytest.raises(BankDamaged, match=key):
                    seal(bank, target, 2, TWICE)
                assert not out.exists() and bank.stat().st_size == len(sound)
    assert len(cut) == 4
