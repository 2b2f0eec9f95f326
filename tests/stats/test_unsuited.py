"""Where superposition is the wrong choice, pack and inspect say so; elsewhere they do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from randes_cli import EditOptions, PackOptions, add, inspect, pack, remove
from randes_cli.specs import BaseStorage
from tests.checkpoints import Packer, State, perturbed, random_state

BASE = random_state({f"layers.{n}.q_proj.weight": [64, 48] for n in range(4)}, seed=1)


def near(count: int, apart: float) -> dict[str, State]:
    """Tasks of one direction that are so far apart, in lengths of it."""
    one = perturbed(BASE, seed=0)
    return {f"t{n}": perturbed(one, seed=n + 1, scale=0.01 * apart) for n in range(count)}


def said(packer: Packer, tasks: dict[str, State], options: PackOptions) -> Sequence[str]:
    """What a pack says, which a dry run and `inspect` say, too."""
    bank = packer.pack(BASE, tasks, options)
    told = packer.reports[-1].unsuited
    assert inspect(bank).report.unsuited == told
    base, out = packer.folder / "base.safetensors", packer.folder / "other.randes"
    dry = pack(base, packer.inputs(tasks), out, options, dry_run=True).unsuited
    assert len(dry) == len(told)
    return told


def test_deltas_that_are_shorter_from_one_of_the_tasks(packer: Packer) -> None:
    tasks = near(4, 0.2)
    (text,) = said(packer, tasks, PackOptions())
    best = text.partition("packed with ")[2].partition(" ")[0]
    flat = {name: torch.cat([v.flatten() for v in state.values()]) for name, state in tasks.items()}
    start = torch.cat([v.flatten() for v in BASE.values()])
    far = [float((one - start).square().sum()) for one in flat.values()]
    close = [float((one - flat[best]).square().sum()) for n, one in flat.items() if n != best]
    times = (sum(far) / 4 / (sum(close) / 3)) ** 0.5
    assert f"would be {times:.1f} times shorter" in text and times > 3


@pytest.mark.parametrize("apart", [1.0, 3.0])
def test_deltas_that_are_not(packer: Packer, apart: float) -> None:
    assert not said(packer, near(4, apart), PackOptions())


def test_alike_tasks_that_are_alone_in_their_groups_are_well_where_they_are(packer: Packer) -> None:
    assert not said(packer, near(4, 0.2), PackOptions(groups=4, bits=2))


@pytest.mark.parametrize("storage", [BaseStorage.embed, BaseStorage.reference])
def test_one_task_of_a_base_as_wide_as_its_superposition(
    packer: Packer, storage: BaseStorage
) -> None:
    base = {name: value.bfloat16() for name, value in BASE.items()}
    bank = packer.pack(base, {"a": perturbed(base, seed=1)}, PackOptions(base_storage=storage))
    (text,) = packer.reports[-1].unsuited
    assert "saves nothing here" in text and "2.00 × the base" in text
    assert inspect(bank).report.unsuited == (text,)
    packer.pack(base, {"a": perturbed(base, seed=1)}, PackOptions(bits=2))
    assert not packer.reports[-1].unsuited


def of_rank(rank: int, seed: int) -> State:
    """Matrices of this rank, and a vector."""
    left = random_state({f"h.{n}.weight": [160, rank] for n in range(3)}, seed=seed)
    right = random_state({f"h.{n}.weight": [rank, 144] for n in range(3)}, seed=seed + 50)
    return {**{n: 0.002 * left[n] @ right[n] for n in left}, "norm": torch.full((144,), 0.01)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("ranks", "said"), [((4, 6, 5), True), ((4, 6, 90), False)])
def test_deltas_of_low_rank_are_smaller_as_adapters(
    packer: Packer, dtype: torch.dtype, ranks: tuple[int, ...], said: bool
) -> None:
    base = {**random_state({f"h.{n}.weight": [160, 144] for n in range(3)}, seed=9)}
    base = {n: 0.02 * v for n, v in base.items()} | {"norm": torch.ones(144)}
    base = {name: value.to(dtype) for name, value in base.items()}
    tasks = {
        f"t{seed}": {n: (base[n].float() + d).to(dtype) for n, d in of_rank(rank, seed).items()}
        for seed, rank in enumerate(ranks)
    }
    packer.pack(base, {**tasks, "base": base})
    told = packer.reports[-1].unsuited
    assert [text.startswith("these deltas have a rank of about 6") for text in told] == [
        True
    ] * said


def adapter(folder: Path, rank: int) -> Path:
    """A LoRA adapter of every matrix."""
    state = {}
    for name, value in BASE.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        rows, cols = value.shape
        state[f"{key}.lora_A.weight"] = torch.randn(rank, cols)
        state[f"{key}.lora_B.weight"] = torch.randn(rows, rank) * 0.01
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    config = (
        f'{{"peft_type": "LORA", "r": {rank}, "lora_alpha": {rank}, "target_modules": ["q_proj"]}}'
    )
    (folder / "adapter_config.json").write_text(config)
    return folder


@pytest.mark.parametrize(("rank", "small"), [(2, True), (24, False)])
def test_adapters_that_are_smaller_than_a_superposition(
    tmp_path: Path, rank: int, small: bool
) -> None:
    save_file(BASE, tmp_path / "base.safetensors")
    adapters = [str(adapter(tmp_path / name, rank)) for name in "abc"]
    report = pack(tmp_path / "base.safetensors", adapters, tmp_path / "x.randes")
    given = sum(Path(one, "adapter_model.safetensors").stat().st_size for one in adapters)
    assert (report.bank_bytes > 0.9 * (report.base_bytes + given)) == small
    assert ["saves" in text for text in report.unsuited] == [True] * small


def test_what_an_edit_makes_unsuited_is_said_as_of_a_bank_packed_so(packer: Packer) -> None:
    tasks = near(4, 0.2)
    bank = packer.pack(BASE, dict([*tasks.items()][:1]), PackOptions(bits=16))
    (text,) = add(bank, packer.inputs(dict([*tasks.items()][1:]))).unsuited
    assert inspect(bank).report.unsuited == (text,)
    packer.pack(BASE, tasks, PackOptions(bits=16), out="whole.randes")
    assert packer.reports[-1].unsuited == (text,)
    assert remove(bank, "t3").unsuited == ()


def test_an_edit_that_knows_deltas_by_their_retrievals_says_about(packer: Packer) -> None:
    tasks = near(4, 0.2)
    bank = packer.pack(BASE, dict([*tasks.items()][:3]), PackOptions(bits=16))
    for name in list(tasks)[:3]:
        (packer.folder / f"{name}.safetensors").unlink()
    inputs = packer.inputs({"t3": tasks["t3"]})
    reports = [add(bank, inputs, EditOptions(dry_run=dry)) for dry in (True, False)]
    assert {report.bytes_after for report in reports} == {bank.stat().st_size}
    for report in reports:
        assert report.estimated and "would be about " in report.unsuited[0]


@pytest.mark.parametrize("ahead", [True, False])
def test_an_edit_that_leaves_one_task_alone_saves_nothing(packer: Packer, ahead: bool) -> None:
    base = {name: value.bfloat16() for name, value in BASE.items()}
    two = {name: perturbed(base, seed=seed) for seed, name in enumerate("ab")}
    bank = packer.pack(base, two, PackOptions(bits=16))
    assert not packer.reports[-1].unsuited
    remove(bank, ["a", "b"])
    inputs, options = packer.inputs({"c": perturbed(base, seed=3)}), EditOptions(dry_run=ahead)
    (text,) = add(bank, inputs, options).unsuited
    assert "saves nothing here" in text and "take 2.00 × the base" in text
