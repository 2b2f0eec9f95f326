"""Every architecture that people fine-tune goes in as its library saves it, and out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from randes_cli.build.pack import pack
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import RunOptions, TaskInput
from tests.models import MODELS, Made, answer, perturb, plain_unet, save, unet


def load(kind: type[Any], folder: Path) -> torch.nn.Module:
    """Load with the task's own class; every key of the file and of the model finds the other."""
    model, found = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(found.values()), found
    assert isinstance(model, torch.nn.Module)
    return model


@pytest.mark.parametrize(
    ("dtype", "sharded"),
    [(torch.float32, False), (torch.bfloat16, True)],
    ids=["fp32", "bf16-sharded"],
)
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_saved_model_comes_back_as_a_folder_that_its_class_loads(
    make: Callable[[], Made], dtype: torch.dtype, sharded: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    save(model, tmp_path / "base", dtype, sharded=sharded)
    before = answer(model, inputs)
    for number in range(3):
        perturb(model, number)
        save(model, tmp_path / f"task{number}", dtype, sharded=sharded)
        if number == 0:
            after = answer(model, inputs)

    tasks = [TaskInput(f"task{number}", str(tmp_path / f"task{number}")) for number in range(3)]
    pack(str(tmp_path / "base"), tasks, tmp_path / "three.randes")
    shards = UnpackOptions(shard_bytes=20_000 if sharded else None)
    unpack(tmp_path / "three.randes", None, tmp_path / "out", shards, RunOptions())
    for task in tasks:
        load(type(model), tmp_path / "out" / task.name)
        assert (tmp_path / "out" / task.name / "model.safetensors").exists() is not sharded

    pack(str(tmp_path / "base"), tasks[:1], tmp_path / "one.randes")
    unpack(tmp_path / "one.randes", ["task0"], tmp_path / "alone", shards, RunOptions())
    back = answer(load(type(model), tmp_path / "alone"), inputs)
    effect = (after - before).abs().max()
    assert effect > 0
    assert (back - after).abs().max() <= 0.03 * effect


def test_a_diffusers_unet_comes_back_as_a_folder_that_its_class_loads(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = unet()
    picture, words = torch.ones(1, 4, 8, 8), torch.ones(1, 3, 8)
    model.save_pretrained(tmp_path / "base")
    perturb(model, 1)
    model.save_pretrained(tmp_path / "style", variant="fp16")

    pack(
        str(tmp_path / "base"),
        [TaskInput("style", str(tmp_path / "style"))],
        tmp_path / "bank.randes",
    )
    unpack(tmp_path / "bank.randes", ["style"], tmp_path / "out", UnpackOptions(), RunOptions())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
    ]
    with torch.no_grad():
        wanted = model(picture, 3, words).sample
        back, found = UNet2DConditionModel.from_pretrained(
            tmp_path / "out", output_loading_info=True, variant="fp16"
        )
        assert not any(found.values()), found
        assert torch.allclose(back(picture, 3, words).sample, wanted, atol=2e-3)


def test_a_bare_timm_file_with_another_head_comes_back_as_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    def weights(classes: int, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        made = {
            "cls_token": torch.randn(1, 1, 32),
            "pos_embed": torch.randn(1, 17, 32),
            "patch_embed.proj.weight": torch.randn(32, 3, 8, 8),
            "patch_embed.proj.bias": torch.randn(32),
        }
        for layer in range(2):
            made[f"blocks.{layer}.norm1.weight"] = torch.ones(32)
            made[f"blocks.{layer}.attn.qkv.weight"] = torch.randn(96, 32)
            made[f"blocks.{layer}.attn.proj.weight"] = torch.randn(32, 32)
            made[f"blocks.{layer}.mlp.fc1.weight"] = torch.randn(128, 32)
        head = {"head.weight": torch.randn(classes, 32), "head.bias": torch.randn(classes)}
        return {**made, **head}

    base, task = weights(1000, 0), weights(7, 1)
    for name in task:
        if not name.startswith("head"):
            task[name] = base[name] + 0.01 * task[name]
    save_file(base, tmp_path / "vit.safetensors")
    save_file(task, tmp_path / "flowers.safetensors")
    report = pack(
        str(tmp_path / "vit.safetensors"),
        [TaskInput("flowers", str(tmp_path / "flowers.safetensors"))],
        tmp_path / "bank.randes",
    )
    assert sorted(report.kept_exactly["flowers"]) == ["head.bias", "head.weight"]
    unpack(tmp_path / "bank.randes", None, tmp_path / "out", UnpackOptions(), RunOptions())
    back = load_file(tmp_path / "out" / "flowers.safetensors")
    assert set(back) == set(task)
    for name, tensor in task.items():
        if name.startswith("head"):
            assert torch.equal(back[name], tensor)
        else:
            assert torch.allclose(back[name], tensor, atol=0.01 / 32)


def test_a_diffusers_pipeline_comes_back_as_a_pipeline_that_runs(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    torch.manual_seed(0)
    part = plain_unet()
    pipeline = DDPMPipeline(part, DDPMScheduler(num_train_timesteps=4))
    pipeline.save_pretrained(tmp_path / "base")
    perturb(part, 1)
    pipeline.save_pretrained(tmp_path / "style")

    style = TaskInput("style", str(tmp_path / "style"))
    pack(str(tmp_path / "base"), [style], tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["style"], tmp_path / "out", UnpackOptions(), RunOptions())
    back = DDPMPipeline.from_pretrained(tmp_path / "out")
    made = [
        one(generator=torch.manual_seed(0), num_inference_steps=2, output_type="np").images
        for one in (pipeline, back)
    ]
    assert abs(made[0] - made[1]).max() < 5e-3
