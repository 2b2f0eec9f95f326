"""Groups that hold a share of the elements: values, edits, seals, predictions, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, seal
from randes_cli.build.edit import add, remove
from randes_cli.cli.main import run
from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import decode
from randes_cli.files.recipe.words import bits_and_share
from randes_cli.ops.verify import verify
from randes_cli.plan import share_of
from randes_cli.read.factors import Factors, factors_of, superposition
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import EditOptions, TensorInfo
from tests.checkpoints import Packer, State, cosine, delta, perturbed, random_state, retrieve, save

ONE = RunOptions(threads=1)
#: Matrices with sides that no share divides, a convolution, and what is too small for a share.
SHAPES = {
    "layers.0.w": [150, 131],
    "layers.1.w": [150, 131],
    "layers.2.w": [150, 131],
    "conv": [71, 19, 3, 3],
    "embed.weight": [301, 67],
    "thin": [4, 300],
    "norm": [150],
}


def family(count: int = 3) -> tuple[State, dict[str, State]]:
    base = random_state(SHAPES)
    tasks = {f"t{n}": perturbed(base, seed=n) for n in range(count)}
    tasks["t1"]["embed.weight"] = torch.cat([tasks["t1"]["embed.weight"], torch.ones(5, 67)])
    tasks["t2"]["embed.weight"] = tasks["t2"]["embed.weight"][:250]
    tasks["t2"]["conv"] = base["conv"].clone()
    return base, tasks


def options(every: int, bits: int = 16, preset: str = "two-sided", **more: object) -> PackOptions:
    return PackOptions(
        Transform.from_preset(preset),
        bits=bits,
        share=every,
        capacity=16,
        **more,  # type: ignore[arg-type]
    )


def sums(bank: Path) -> dict[str, bytes]:
    with BankFile(bank) as opened:
        return {
            key: opened.read_whole(key).tobytes()
            for key in opened.header.tensors
            if key.startswith(("sum/", "scale/"))
        }


@pytest.mark.parametrize("preset", ["two-sided", "hankel", "srsf", "shift"])
@pytest.mark.parametrize(("every", "bits"), [(2, 16), (2, 8), (2, 1), (4, 2)])
def test_the_sum_is_the_dense_one_on_the_share_and_nothing_else(
    packer: Packer, preset: str, every: int, bits: int
) -> None:
    """`Packer` also has each bank read by the independent reader."""
    base, tasks = family()
    packer.pack(base, tasks, options(every, bits, preset, groups=2))
    live = bits if bits >= 8 else 16
    dense = packer.pack(base, tasks, options(1, live, preset, groups=2), out="dense.randes")
    shared = packer.pack(base, tasks, options(every, live, preset, groups=2), out="s.randes")
    held = 0
    with BankFile(dense) as one, BankFile(shared) as two:
        assert one.manifest.steps == two.manifest.steps
        for key in (key for key in one.header.tensors if key.startswith("sum/")):
            group, name = int(key.split("/")[1]), key.split("/", 2)[2]
            share = share_of(one.manifest.base.tensors[name], group, two.manifest.shares)
            dtype = np.int16 if one.info(key).dtype == "I16" else np.int8
            whole = one.read_whole(key).view(dtype)
            kept = whole if share.every == 1 else share.take(whole, 0)
            assert np.array_equal(two.read_whole(key).view(dtype), kept)
            held += share.every > 1
        assert two.manifest.features == ("superposition", "share")
        assert two.manifest.shares == {0: every, 1: every}
    assert held


@pytest.mark.parametrize("every", [2, 4])
@pytest.mark.parametrize("bits", [16, 8, 2])
def test_threads_strips_and_backends_leave_the_bytes_alone(
    packer: Packer, every: int, bits: int
) -> None:
    base, tasks = family()
    runs = [
        RunOptions(threads=1),
        RunOptions(threads=3, strip_elements=777),
        RunOptions(threads=1, strip_elements=64),
        RunOptions(threads=2, device="cpu-torch", strip_elements=4321),
    ]
    banks = {packer.pack(base, tasks, options(every, bits), run=one).read_bytes() for one in runs}
    assert len(banks) == 1


def test_elements_outside_the_share_come_back_as_the_base_s(packer: Packer) -> None:
    base, tasks = family()
    found = retrieve(packer.pack(base, tasks, options(4)), "t0")["layers.0.w"]
    i, j = torch.meshgrid(torch.arange(150), torch.arange(131), indexing="ij")
    inside = (i + j) % 4 == 0
    assert torch.equal(found[~inside], base["layers.0.w"][~inside])
    assert (found[inside] != base["layers.0.w"][inside]).float().mean() > 0.99


@pytest.mark.parametrize("bits", [16, 8])
def test_removing_what_was_added_restores_a_share_bit_for_bit(packer: Packer, bits: int) -> None:
    base, tasks = family(4)
    last = save(tasks.pop("t3"), packer.folder / "t3.safetensors")
    bank = packer.pack(base, tasks, options(2, bits))
    before = sums(bank)
    add(bank, [TaskInput("t3", str(last))], EditOptions(), ONE)
    after = sums(bank)
    assert after["sum/0/layers.0.w"] != before["sum/0/layers.0.w"]
    with BankFile(bank) as opened:
        assert verify(opened, ONE).sound
    remove(bank, ["t3"], run=ONE)
    assert sums(bank) == before
    with BankFile(bank) as opened:
        assert opened.manifest.shares == {0: 2}


def test_adding_is_as_if_all_had_been_packed_together(packer: Packer) -> None:
    base, tasks = family(4)
    whole = sums(packer.pack(base, tasks, options(4)))
    fewer = {name: tasks[name] for name in ("t0", "t1", "t2")}
    with BankFile(packer.folder / "bank.randes") as opened:
        steps = opened.manifest.steps
    bank = packer.pack(base, fewer, options(4, steps=steps), out="fewer.randes")
    path = packer.folder / "t3.safetensors"
    add(bank, [TaskInput("t3", str(path))], EditOptions(), RunOptions(strip_elements=500))
    assert sums(bank) == whole


def test_an_edit_of_a_damaged_share_is_refused(packer: Packer) -> None:
    base, tasks = family(4)
    last = save(tasks.pop("t3"), packer.folder / "t3.safetensors")
    bank = packer.pack(base, tasks, options(2))
    with BankFile(bank) as opened:
        start = opened.header.starts["sum/0/layers.1.w"]
    data = bytearray(bank.read_bytes())
    data[start + 900] ^= 1
    bank.write_bytes(data)
    with pytest.raises(BankDamaged, match=r"sum/0/layers\.1\.w"):
        add(bank, [TaskInput("t3", str(last))], EditOptions(), ONE)
    with pytest.raises(BankDamaged, match=r"sum/0/layers\.1\.w"):
        retrieve(bank, "t0")
    assert bank.read_bytes() == bytes(data)
    with BankFile(bank) as opened:
        report = verify(opened, ONE)
    assert report.damaged == ("sum/0/layers.1.w",)
    assert sorted(report.hurt) == ["t0", "t1", "t2"]


def test_a_group_that_opens_beside_sealed_ones_has_their_share(packer: Packer) -> None:
    base, tasks = family(4)
    last = save(tasks.pop("t3"), packer.folder / "t3.safetensors")
    bank = packer.pack(base, tasks, options(4, 1))
    add(bank, [TaskInput("t3", str(last))], EditOptions(), ONE)
    with BankFile(bank) as opened:
        assert opened.manifest.shares == {0: 4, 1: 4}
        assert opened.info("sum/1/layers.0.w").shape == (150, 33)
        assert opened.info("sum/0/layers.0.w").shape == (-(-150 * 33 // 8),)
    seal(bank, None, 2, ONE)
    with BankFile(bank) as opened:
        assert verify(opened, ONE).sound


def test_small_and_thin_tensors_stay_dense() -> None:
    def every(shape: tuple[int, ...], m: int) -> int:
        return share_of(TensorInfo("w", "F32", shape), 0, {0: m}).every

    assert [every((256, 256), m) for m in (1, 2, 4, 8)] == [1, 2, 4, 8]
    assert every((255, 256), 8) == 1
    assert every((64, 64), 2) == 2
    assert every((64, 63), 2) == 1
    assert every((4, 4096), 2) == every((4096,), 2) == 1


@pytest.mark.parametrize("bits", [16, 1])
@pytest.mark.parametrize("every", [2, 4])
def test_the_predicted_cosine_is_the_measured_one(packer: Packer, every: int, bits: int) -> None:
    base = random_state({"w": [300, 200], "v": [200, 310]})
    tasks = {f"t{n}": perturbed(base, seed=n) for n in range(3)}
    bank = packer.pack(base, tasks, options(every, bits))
    for task in packer.reports[-1].tasks:
        found = cosine(delta(tasks[task.name], base), delta(retrieve(bank, task.name), base))
        kept = 1 - 0.3634 if bits == 1 else 1.0
        assert task.predicted_cosine == pytest.approx((kept / (3 * every)) ** 0.5, rel=0.02)
        assert found == pytest.approx(task.predicted_cosine, abs=0.012)


def test_a_dry_run_and_inspect_tell_the_size_of_a_share(
    packer: Packer, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tasks = family()
    bank = packer.pack(base, tasks)
    files = [str(packer.folder / f"{name}.safetensors") for name in ("base", "t0", "t1")]
    run(["pack", *files, "-o", str(bank), "--bits", "1/4", "--force", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert (made["bits"], made["share"]) == (1, 4)
    assert made["bank_bytes"] == bank.stat().st_size
    with BankFile(bank) as opened:
        assert opened.manifest.shares == {0: 4}
        assert {seal.bits for seal in opened.manifest.sealed.values()} == {1}
    run(["pack", *files, "-o", str(bank), "--bits", "1", "--share", "1/4", "--force"])
    capsys.readouterr()
    run(["inspect", str(bank)])
    assert "group 0 on 1/4 of the elements" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--share", "1/3"], ["--share", "2"], ["--bits", "1/4", "--share", "1/2"]]
)
def test_other_shares_are_usage_errors(words: list[str], tmp_path: Path) -> None:
    assert run(["pack", "base", "task", "-o", str(tmp_path / "b.randes"), *words]) == 2
    with pytest.raises(UsageError, match="--share"):
        PackOptions(share=3)


@pytest.mark.parametrize("bits", ["1/16", "3/4", "1/0"])
def test_bits_that_are_no_share_are_told_under_the_name_of_bits(bits: str) -> None:
    with pytest.raises(UsageError, match=f"^--bits must be .* or 1/8, not '{bits}'"):
        bits_and_share(bits, None)


def test_factors_know_the_share(packer: Packer) -> None:
    base, tasks = family()
    bank = packer.pack(base, tasks, options(4, 2))
    with BankFile(bank) as opened:
        retrieval = Retrieval(opened, None, opened.task("t0"))
        found, stored = factors_of(retrieval, "layers.0.w"), superposition(retrieval, "layers.0.w")
        assert isinstance(found, Factors)
        assert found.scales is not None
        assert stored.shape == found.share.shape == (150, 33)
        whole = found.share.spread(np.asarray(stored).reshape(-1), 0, 150 * 131)
        rows, columns = (f * s for f, s in zip((found.a, found.b), found.scales, strict=True))
        made = whole.reshape(150, 131) * rows[:, None] * columns * (4 * 2.0**found.step)
    back = retrieve(bank, "t0")["layers.0.w"] - base["layers.0.w"]
    assert np.allclose(made, back.numpy(), atol=1e-6)


@pytest.mark.parametrize("bad", [{"0": 3}, {"1": 2}, {"00": 2}, {"0": 1}, [2], {"0": True}])
def test_shares_that_cannot_be_are_refused(packer: Packer, bad: object) -> None:
    base, tasks = family()
    with BankFile(packer.pack(base, tasks, options(2))) as opened:
        text = json.loads(opened.read_whole("manifest").tobytes())
    text["shares"] = bad
    with pytest.raises(BankDamaged, match="shares"):
        decode(json.dumps(text).encode())


def test_a_module_takes_a_task_of_a_share(packer: Packer) -> None:
    base, tasks = family()
    bank = packer.pack(base, tasks, options(2))
    module = torch.nn.Module()
    for name in ("thin", "norm", "conv"):
        module.register_parameter(name, torch.nn.Parameter(base[name].clone()))
    expected = retrieve(bank, "t0")
    with Bank.open(bank) as opened:
        opened.load_into(module, "t0", strict=False)
    assert all(torch.equal(value, expected[name]) for name, value in module.named_parameters())
