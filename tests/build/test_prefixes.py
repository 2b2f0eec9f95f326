"""Names that differ from the base's by what stands in front of them."""

from __future__ import annotations

import pytest
import torch

from randes_cli import add
from randes_cli.errors import MismatchError
from tests.checkpoints import Packer, perturbed, random_state, retrieve


@pytest.mark.parametrize(("ours", "theirs"), [("enc.", "model.enc."), ("bert.", "")])
def test_a_task_of_another_prefix_is_packed_and_comes_back_under_its_own_names(
    packer: Packer, ours: str, theirs: str
) -> None:
    base = random_state({f"{ours}a.x.weight": [8, 8], f"{ours}b.x.weight": [8, 8]})
    plain = perturbed(base, seed=1)
    task = {theirs + name.removeprefix(ours): value for name, value in plain.items()}
    bank = packer.pack(base, {"renamed": task, "plain": plain})
    found = retrieve(bank, "renamed")
    assert set(found) == set(task)
    alone = retrieve(packer.pack(base, {"renamed": plain, "plain": plain}), "renamed")
    for name, value in alone.items():
        assert bool((found[theirs + name.removeprefix(ours)] == value).all())


def test_what_is_kept_exactly_is_told_under_the_task_s_own_names(packer: Packer) -> None:
    base = random_state({f"enc.{part}.x.weight": [8, 4 if part == "d" else 80] for part in "abcd"})
    task = {f"model.{name}": value for name, value in perturbed(base, seed=1).items()}
    task["model.enc.d.x.weight"] = task["model.enc.d.x.weight"][:4].clone()
    task["head.y.weight"] = task["model.enc.a.x.weight"] + 1
    expected = {"model.enc.d.x.weight", "head.y.weight"}
    bank = packer.pack(base, {"plain": perturbed(base, seed=2), "t": task})
    assert set(packer.reports[-1].kept_exactly["t"]) == expected
    (again,) = packer.inputs({"again": task})
    assert set(add(bank, [again]).kept_exactly["again"]) == expected


def test_a_model_that_was_saved_with_its_adapter_beside_it_is_told_to_merge(
    packer: Packer,
) -> None:
    base = random_state({f"enc.layers.{n}.x.weight": [8, 8] for n in range(3)})
    task = {f"base_model.model.{n.replace('.x', '.x.base_layer')}": v for n, v in base.items()}
    with pytest.raises(MismatchError, match=r"base_layer\.weight' is below an adapter: merge_and"):
        packer.pack(base, {"t": task})


def test_the_reason_why_a_tensor_is_kept_exactly_is_the_true_one(packer: Packer) -> None:
    base = random_state({"a.weight": [40, 40], "b.weight": [40, 40]})
    base |= {"n": torch.arange(6), "c": torch.ones(3, dtype=torch.complex64)}
    task = {**perturbed(base, seed=1), "n": torch.rand(6), "c": base["c"] * 2}
    packer.pack(base, {"t": task})
    assert packer.reports[-1].kept_exactly["t"] == {
        "n": "the base's are I64",
        "c": "complex numbers",
    }
