"""Tasks that have the base's tensors under other names: another version's, or a tied head's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from randes_cli import Bank, PackOptions, TaskInput, add, pack, remove, unpack
from randes_cli.errors import MismatchError
from tests.files.test_stored_names import gte, llava, mixtral, qwen2_vl, vit

FSDP = "_fsdp_wrapped_module"
State = dict[str, torch.Tensor]
NEWER = (("weight_g", "original0"), ("weight_v", "original1"))
SIZES = {"conv.weight_g": (1, 1, 4), "conv.weight_v": (12, 6, 4), "proj.weight": (24, 12)}


def older(seed: int) -> State:
    torch.manual_seed(seed)
    return {f"encoder.{name}": torch.randn(size) for name, size in SIZES.items()}


def newer(state: State) -> State:
    """The same as torch names it since weight norm is a parametrization."""
    names = {f"encoder.conv.{a}": f"encoder.conv.parametrizations.weight.{b}" for a, b in NEWER}
    return {names.get(name, name): tensor for name, tensor in state.items()}


def save(folder: Path, **states: State) -> list[TaskInput]:
    for name, state in states.items():
        save_file(state, folder / f"{name}.safetensors")
    return [TaskInput(name, str(folder / f"{name}.safetensors")) for name in states]


def back(bank: Path, task: str) -> State:
    with Bank.open(bank) as file:
        return file.retrieve(task)


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("base_is_newer", [False, True])
def test_a_task_in_another_versions_names_is_the_same_task(
    base_is_newer: bool, tmp_path: Path
) -> None:
    base, one, two = older(0), older(1), older(2)
    mine, theirs = (newer, State) if base_is_newer else (State, newer)
    (_, *plain) = save(tmp_path, base=mine(base), one=mine(one), two=mine(two))
    pack(tmp_path / "base.safetensors", plain, tmp_path / "plain.randes")
    tasks = save(tmp_path, one=theirs(one), two=theirs(two), three=theirs(older(3)))
    report = pack(tmp_path / "base.safetensors", tasks[:2], tmp_path / "bank.randes")
    assert report.tasks[0].missing == 0
    assert "2 tensors under another name (encoder.conv." in report.tasks[0].notes[0]
    for task, state in (("one", one), ("two", two)):
        wanted = back(tmp_path / "plain.randes", task)
        found = back(tmp_path / "bank.randes", task)
        assert found.keys() == theirs(state).keys()
        assert same(newer(found), newer(wanted))

    before = back(tmp_path / "bank.randes", "one")
    add(tmp_path / "bank.randes", [tasks[2]])
    assert back(tmp_path / "bank.randes", "three").keys() == theirs(base).keys()
    remove(tmp_path / "bank.randes", ["three"])
    assert same(back(tmp_path / "bank.randes", "one"), before)


@pytest.mark.parametrize("word", ["_orig_mod", "_fsdp_wrapped_module", "module"])
def test_a_word_of_a_wrapper_inside_names_is_the_task_s_own(word: str, tmp_path: Path) -> None:
    base, one = older(0), older(1)
    task = {name.replace("conv.", f"conv.{word}."): tensor for name, tensor in one.items()}
    (_, plain) = save(tmp_path, base=base, one=one)
    pack(tmp_path / "base.safetensors", [plain], tmp_path / "plain.randes")
    (wrapped,) = save(tmp_path, one=task)
    pack(tmp_path / "base.safetensors", [wrapped], tmp_path / "bank.randes")
    wanted = back(tmp_path / "plain.randes", "one")
    found = back(tmp_path / "bank.randes", "one")
    assert found.keys() == task.keys()
    assert same({name.replace(f".{word}", ""): t for name, t in found.items()}, wanted)


@pytest.mark.parametrize("word", ["", "_orig_mod."])
def test_words_of_wrappers_inside_the_base_s_names_hide_no_task(word: str, tmp_path: Path) -> None:
    def wrapped(state: State) -> State:
        """As FSDP names what it wraps, and each layer by itself, too."""
        parts = ((name.replace("r.", f"r.{FSDP}."), t) for name, t in state.items())
        return {f"{FSDP}.{name}": tensor for name, tensor in parts}

    base, one = older(0), {f"{word}{name}": tensor for name, tensor in older(1).items()}
    (_, task) = save(tmp_path, base=base, one=one)
    pack(tmp_path / "base.safetensors", [task], tmp_path / "plain.randes")
    save(tmp_path, base=wrapped(base))
    pack(tmp_path / "base.safetensors", [task], tmp_path / "bank.randes")
    wanted, found = (back(tmp_path / f"{name}.randes", "one") for name in ("plain", "bank"))
    assert found.keys() == one.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-3) for name in one)


@pytest.mark.parametrize("make", [vit, qwen2_vl, llava])
def test_a_task_in_the_names_of_its_modules_is_the_same_task(make: Any, tmp_path: Path) -> None:
    """As FSDP, DeepSpeed and `state_dict()` have them."""
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    model.save_pretrained(tmp_path / "file")
    (memory,) = save(tmp_path, memory={n: t.clone() for n, t in model.state_dict().items()})
    for task in (TaskInput("a", str(tmp_path / "file")), TaskInput("a", memory.source)):
        pack(tmp_path / "base", [task], tmp_path / f"{Path(task.source).stem}.randes")
    unpack(tmp_path / "file.randes", ["a"], tmp_path / "out")
    wanted = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert same(back(tmp_path / "memory.randes", "a"), dict(wanted))


@pytest.mark.parametrize(
    ("embedding", "head"),
    [
        ("model.embed_tokens", "lm_head"),
        ("lm_head", "model.embed_tokens"),
        ("shared", "decoder.embed_tokens"),
    ],
)
def test_of_the_names_of_a_tied_tensor_any_may_have_been_saved(
    embedding: str, head: str, tmp_path: Path
) -> None:
    """safetensors' `save_model` keeps the first in the alphabet, transformers another."""
    torch.manual_seed(0)
    base = {f"{embedding}.weight": torch.randn(64, 8), "model.norm.weight": torch.ones(8)}
    one = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in base.items()}
    other = {name.replace(embedding, head): tensor for name, tensor in one.items()}
    (_, plain) = save(tmp_path, base=base, one=one)
    pack(tmp_path / "base.safetensors", [plain], tmp_path / "plain.randes")
    wanted = back(tmp_path / "plain.randes", "one")
    (task,) = save(tmp_path, one=other)
    pack(tmp_path / "base.safetensors", [task], tmp_path / "bank.randes")
    found = back(tmp_path / "bank.randes", "one")
    assert found.keys() == other.keys()
    assert torch.equal(found[f"{head}.weight"], wanted[f"{embedding}.weight"])


def test_a_new_head_is_taken_for_no_other_tensor_of_its_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = {f"roberta.layer.{n}.weight": torch.randn(16, 16) for n in range(12)}
    base = body | {"lm_head.dense.weight": torch.randn(16, 16), "lm_head.bias": torch.randn(9)}
    heads = {"classifier.dense.weight": torch.randn(16, 16), "classifier.out.weight": torch.ones(3)}
    (_, task) = save(tmp_path, base=base, one=body | heads)
    with pytest.raises(MismatchError, match="only in the task: 'classifier"):
        pack(tmp_path / "base.safetensors", [task], tmp_path / "bank.randes")
    (_, task) = save(
        tmp_path,
        base=base | {"more": torch.ones(2**14)},
        one={**body, **heads, "more": torch.ones(2**14)},
    )
    pack(tmp_path / "base.safetensors", [task], tmp_path / "bank.randes")
    found = back(tmp_path / "bank.randes", "one")
    assert torch.equal(found["classifier.dense.weight"], heads["classifier.dense.weight"])


def test_what_is_kept_exactly_is_told_under_the_name_that_the_task_has(tmp_path: Path) -> None:
    base = {**older(0), "model.embed_tokens.weight": torch.randn(8, 12)}
    task = {f"module.{name}": tensor + 0.01 for name, tensor in base.items()}
    task["module.lm_head.weight"] = task.pop("module.model.embed_tokens.weight")
    (_, one) = save(tmp_path, base=base, one=task)
    options = PackOptions(exact="embed")
    report = pack(tmp_path / "base.safetensors", [one], tmp_path / "bank.randes", options)
    kept = {n for n, why in report.kept_exactly["one"].items() if why == "as asked (--exact)"}
    assert kept == {"module.lm_head.weight"}
    found = back(tmp_path / "bank.randes", "one")
    assert torch.equal(found["module.lm_head.weight"], task["module.lm_head.weight"])


@pytest.mark.parametrize(
    ("make", "name"), [(gte, r"layers\.0\.mlp\.gate_proj"), (mixtral, r"\.experts\.\w+_proj")]
)
def test_weights_that_are_cut_or_joined_in_memory_are_refused_with_what_to_do(
    make: Any, name: str, tmp_path: Path
) -> None:
    model = make()
    model.save_pretrained(tmp_path / "file")
    (memory,) = save(tmp_path, memory={n: t.clone() for n, t in model.state_dict().items()})
    file = TaskInput("file", str(tmp_path / "file"))
    for base, task, whose in ((file, memory, "task"), (memory, file, "base")):
        with pytest.raises(MismatchError, match=rf"the {whose} has .*{name}.* in memory and not"):
            pack(base.source, [task], tmp_path / "bank.randes")
