"""Pipelines of diffusers come as their own `from_pretrained` would load them from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers as tf
from diffusers.models import modeling_utils
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

import randes_cli
from randes_cli import Bank, TaskInput, pack
from randes_cli.errors import BankDamaged, MissingError
from tests.build.test_resources import peak
from tests.live.test_from_bank import assert_same, save_twice, unpacked
from tests.models import perturb, unet

TOWER = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
WORDS = {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def stable_diffusion(folder: Path) -> Any:
    """With a part of transformers' and one of the pipeline's own code."""
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "a", "b"]
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    pictures = {**TOWER, "image_size": 8, "patch_size": 4}
    both = tf.CLIPConfig(text_config={**TOWER, **WORDS}, vision_config=pictures, projection_dim=8)
    return diffusers.StableDiffusionPipeline(
        diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
        tf.CLIPTextModel(tf.CLIPTextConfig(**TOWER, **WORDS)),
        tf.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")),
        unet(),
        diffusers.DDIMScheduler(),
        StableDiffusionSafetyChecker(both),
        tf.CLIPImageProcessor(size=8, crop_size=8),
    )


MODELS = ("vae", "text_encoder", "unet", "safety_checker")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    made = stable_diffusion(folder)
    made.save_pretrained(folder / "base")
    for seed, part in enumerate(MODELS):
        perturb(getattr(made, part), seed)
    made.save_pretrained(folder / "style")
    bank = folder / "bank.randes"
    pack(str(folder / "base"), [TaskInput("style", str(folder / "style"))], bank)
    return bank, unpacked(bank, "style", folder / "out")


def named(model: Any) -> str:
    """Where a model says that it came from."""
    config = model.config
    return str(getattr(config, "_name_or_path", None) or config["_name_or_path"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": torch.bfloat16},
        {"dtype": {"unet": torch.bfloat16, "default": torch.float16}},
        {"device_map": "balanced"},
        {"device_map": "cpu"},
        {"safety_checker": None},
        {"low_cpu_mem_usage": False},
    ],
    ids=str,
)
def test_a_pipeline_is_what_its_own_loader_makes_of_a_folder(
    options: dict[str, Any], pipeline: tuple[Path, Path]
) -> None:
    bank, folder = pipeline
    loaders = modeling_utils.load_state_dict, tf.PreTrainedModel.__dict__["from_pretrained"]
    found = randes_cli.diffusers.from_bank(bank, "style", **options)
    wanted = diffusers.DiffusionPipeline.from_pretrained(folder, **options)
    assert type(found) is type(wanted)
    assert found.components.keys() == wanted.components.keys()
    for name in MODELS:
        ours, theirs = getattr(found, name), getattr(wanted, name)
        if theirs is None:
            assert ours is None and name == "safety_checker"
        else:
            assert_same(ours, theirs)
            assert getattr(ours, "hf_device_map", None) == getattr(theirs, "hf_device_map", None)
            assert named(ours) == f"{bank}:style"
    assert getattr(found, "hf_device_map", None) == getattr(wanted, "hf_device_map", None)
    assert named(found) == f"{bank}:style"
    after = modeling_utils.load_state_dict, tf.PreTrainedModel.__dict__["from_pretrained"]
    assert after == loaders


@pytest.mark.parametrize("devices", [{"unet": "meta"}, torch.device("cpu")])
def test_a_pipelines_models_may_be_placed_one_by_one(
    devices: Any, pipeline: tuple[Path, Path]
) -> None:
    found = randes_cli.diffusers.from_bank(pipeline[0], "style", device_map=devices)
    assert found.unet.device == torch.device("meta" if isinstance(devices, dict) else "cpu")
    assert found.vae.device == torch.device("cpu")


def test_a_variant_is_opened_whether_it_is_named_or_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = unet().half()
    for name in ("base", "style"):
        model.save_pretrained(tmp_path / name, variant="fp16")
        perturb(model, 1)
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base"), [TaskInput("style", str(tmp_path / "style"))], bank)
    folder = unpacked(bank, "style", tmp_path / "out")
    kind = diffusers.UNet2DConditionModel
    wanted = kind.from_pretrained(folder, variant="fp16", dtype=torch.float16)
    said: list[dict[str, Any]] = [{}, {"variant": "fp16"}]
    for options in said:
        found = randes_cli.diffusers.from_bank(bank, "style", dtype=torch.float16, **options)
        assert_same(found, wanted)


def test_configs_may_be_overridden_and_a_quantisation_is_the_librarys_to_judge(
    pipeline: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = unet()
    bank = save_twice(model, model, tmp_path)
    assert randes_cli.diffusers.from_bank(bank, sample_size=32).config.sample_size == 32
    with pytest.raises(ValueError, match="PipelineQuantizationConfig"):
        randes_cli.diffusers.from_bank(pipeline[0], quantization_config={"bits": 4})


def test_memory_peaks_at_one_model_and_damage_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        block_out_channels=(32, 256),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    size = sum(parameter.nbytes for parameter in model.parameters())
    largest = max(parameter.nbytes for parameter in model.parameters())
    bank = save_twice(model, model, tmp_path)
    del model
    held = peak(lambda: randes_cli.diffusers.from_bank(bank, "style"))
    assert size <= held <= size + 3 * largest + 8 * 2**20
    with Bank.open(bank) as opened:
        start = opened.file.header.starts["sum/0/decoder.conv_in.weight"]
    data = bytearray(bank.read_bytes())
    data[start] ^= 1
    bank.write_bytes(data)
    with pytest.raises(BankDamaged, match=r"decoder\.conv_in\.weight' is damaged"):
        randes_cli.diffusers.from_bank(bank, "style")


def test_what_no_config_says_cannot_be_built(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = unet()
    save_twice(model, model, tmp_path)
    file = "diffusion_pytorch_model.safetensors"
    inputs = [TaskInput("style", str(tmp_path / "style" / file))]
    pack(str(tmp_path / "base" / file), inputs, tmp_path / "bare")
    with pytest.raises(MissingError, match=r"no config\.json travels"):
        randes_cli.diffusers.from_bank(tmp_path / "bare", "style")
