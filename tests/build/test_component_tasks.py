"""A component alone as a task of a pipeline: taken where it fits, and given back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from randes_cli import PackOptions, RunOptions, add, diff, pack, remove, unpack, verify
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.read.places import UnpackOptions
from tests.checkpoints import State, perturbed, random_state, retrieve, save
from tests.independent.judge import judge

ONE = RunOptions(threads=1)
UNET = random_state({f"down.{n}.weight": [40, 60] for n in range(3)}, seed=1)
TEXT = random_state({"layers.0.weight": [30, 20], "layers.1.weight": [30, 20]}, seed=2)
MORE = random_state({**{n: [30, 20] for n in TEXT}, "layers.2.weight": [30, 20]}, seed=3)
PARTS = {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": MORE}


def pipeline(folder: Path, **parts: State) -> Path:
    """A pipeline with a config in each component."""
    for name, state in parts.items():
        save(state, folder / name / "diffusion_pytorch_model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"part": name}))
    index = {"_class_name": "X", **{name: ["diffusers", "Y"] for name in parts}}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_components_alone_are_packed_added_removed_and_come_back_alone(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", **PARTS)
    unet, text = perturbed(UNET, seed=1), perturbed(TEXT, seed=2)
    save(unet, tmp_path / "unet.safetensors")
    save(text, tmp_path / "text" / "model.safetensors")
    (tmp_path / "text" / "config.json").write_text('{"mine": 1}')
    save(unet, tmp_path / "bare" / "model.safetensors")
    bank = tmp_path / "bank.randes"
    names = [tmp_path / "unet.safetensors", tmp_path / "text", tmp_path / "bare"]
    report = pack(base, names, bank, PackOptions(bits=16), ONE)
    told = {task.name: task.notes for task in report.tasks}
    assert told["unet"] == (
        "is the base's unet/ alone, and comes back as that; the rest is the base's",
    )
    assert "text_encoder/ alone" in told["text"][0] and not any(report.kept_exactly.values())
    add(bank, {"again": tmp_path / "text"}, run=ONE)
    remove(bank, "text", run=ONE)
    for name, wanted in (("unet", unet), ("again", text)):
        back = retrieve(bank, name)
        assert set(back) == set(wanted)
        assert all((back[key] - wanted[key]).abs().max() < 0.1 for key in wanted)
    unpack(bank, None, tmp_path / "out", UnpackOptions(), ONE)
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert files == {
        "unet.safetensors",
        *(
            f"{task}/{file}"
            for task in ("again", "bare")
            for file in ("config.json", "model.safetensors")
        ),
    }
    configs = [
        json.loads((tmp_path / f"out/{n}/config.json").read_text()) for n in ("again", "bare")
    ]
    assert configs == [{"mine": 1}, {"part": "unet"}]
    judge(bank)


def test_a_component_that_fits_two_places_is_refused_with_both(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", unet=UNET, first=TEXT, second=perturbed(TEXT, seed=9))
    save(perturbed(TEXT, seed=2), tmp_path / "text.safetensors")
    save(perturbed(UNET, seed=2), tmp_path / "unet.safetensors")
    bank = tmp_path / "bank.randes"
    with pytest.raises(MismatchError, match=r"the one that it is from \(first or second\)"):
        pack(base, [tmp_path / "text.safetensors"], bank, run=ONE)
    pack(base, [tmp_path / "unet.safetensors"], bank, run=ONE)
    with pytest.raises(MismatchError, match=r"the one that it is from \(first or second\)"):
        add(bank, [tmp_path / "text.safetensors"], run=ONE)
    pack(base / "second", [tmp_path / "text.safetensors"], tmp_path / "second.randes", run=ONE)


def test_a_tensor_of_another_shape_does_not_keep_a_component_from_its_place(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", **PARTS)
    other = {**perturbed(UNET, seed=1), "down.3.weight": torch.ones(3, 4)}
    other["extra"] = torch.arange(4)
    save(other, tmp_path / "unet.safetensors")
    bank = tmp_path / "bank.randes"
    pack(base, [tmp_path / "unet.safetensors"], bank, run=ONE)
    with BankFile(bank) as file:
        (task,) = file.manifest.tasks
        assert set(task.own) == {"down.3.weight", "extra"} and task.prefix == ("", "unet/")
    assert set(retrieve(bank, "unet")) == set(other)


def test_a_model_that_is_no_component_is_refused_as_ever(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", **PARTS)
    save(random_state({"a.weight": [40, 60], "b.weight": [40, 60]}), tmp_path / "x.safetensors")
    with pytest.raises(MismatchError, match="is it of another base"):
        pack(base, [tmp_path / "x.safetensors"], tmp_path / "bank.randes", run=ONE)


def test_an_adapter_merged_into_a_pipeline_is_read_again_by_every_command(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", **PARTS)
    factors = random_state({"lora_A.weight": [2, 60], "lora_B.weight": [40, 2]}, seed=4)
    style = {
        f"unet.down.{n}.{part}": value.clone() for n in range(2) for part, value in factors.items()
    }
    save(style, tmp_path / "style" / "pytorch_lora_weights.safetensors")
    bank, source = tmp_path / "bank.randes", {"style": tmp_path / "style"}
    pack(base, source, bank, PackOptions(bits=16), ONE)
    before = retrieve(bank, "style")
    changed = UNET["down.0.weight"] + factors["lora_B.weight"] @ factors["lora_A.weight"]
    assert (before["unet/down.0.weight"] - changed).abs().max() < 0.1
    (found,) = verify(bank, against=source, run=ONE).against
    assert found.original and found.cosine > 0.99
    assert diff(bank, source, run=ONE).same
    add(bank, {"again": tmp_path / "style"}, run=ONE)
    remove(bank, "again", run=ONE)
    remove(bank, "style", run=ONE)
    with BankFile(bank) as left:
        assert not left.manifest.tasks
