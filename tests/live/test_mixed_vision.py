"""Detectors, models that seek texts, films and sounds whose rows are not what lies first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F  # noqa: N812

from randes_cli.errors import MismatchError, UsageError
from tests.live.many import ASKED, alone, assert_near, attached, bank_of, options
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states
from tests.models import Made

pytestmark = pytest.mark.filterwarnings("ignore:.*are answered task by task")
TOWER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
TOWER |= {"num_attention_heads": 4}


class Integral(nn.Module):
    """What a distribution over bins weighs, as detectors find the edges of boxes by."""

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.corners = nn.Linear(8, 24)
        self.bins = nn.Parameter(torch.randn(6))
        self.computed = computed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bins = torch.cat([self.bins[:3] * 2, self.bins[3:]]) if self.computed else self.bins
        corners = F.softmax(self.corners(x).reshape(-1, 6), dim=1)
        return F.linear(corners, bins).reshape(len(x), -1)


@pytest.mark.parametrize("computed", [True, False])
def test_a_product_with_a_vector(computed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Integral(computed)
    assert_module_answers(model, bank_of_states(model, tmp_path, options()), torch.randn(5, 8))


def dab_detr() -> Made:
    vision = tf.ResNetConfig(
        embeddings_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"]
    )
    size: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 5}
    size |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    size |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = tf.DabDetrConfig(
        backbone_config=vision, use_timm_backbone=False, hidden_size=32, num_labels=3, **size
    )
    return tf.DabDetrForObjectDetection(config), {}


def owlvit() -> Made:
    config = tf.OwlViTConfig(
        text_config={**TOWER, "vocab_size": 96, "max_position_embeddings": 16},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    return tf.OwlViTForObjectDetection(config), {}


@torch.inference_mode()
@pytest.mark.parametrize("rows", [2, 5])
def test_boxes_of_layers_that_lie_before_the_batch(rows: int, tmp_path: Path) -> None:
    bank, pixels = bank_of(dab_detr, tmp_path), torch.randn(rows, 3, 32, 32)
    found = attached(bank)(pixel_values=pixels, adapter_names=ASKED[:rows])
    for row, (_, model) in enumerate(_models(bank, rows)):
        one = model(pixel_values=pixels[row : row + 1])
        assert_near(found.pred_boxes[row], one.pred_boxes[0])
        assert_near(found.logits[row], one.logits[0])


def _models(bank: Path, rows: int = len(ASKED)) -> list[tuple[str | None, Any]]:
    models = alone(bank)
    return [(task, models[task]) for task in ASKED[:rows]]


@torch.inference_mode()
def test_several_texts_are_sought_in_each_picture(tmp_path: Path) -> None:
    bank, pixels = bank_of(owlvit, tmp_path), torch.randn(5, 3, 32, 32)
    ids = torch.randint(1, 90, (15, 6))  # three of each picture
    mixed = attached(bank)
    found = mixed(input_ids=ids, pixel_values=pixels, adapter_names=ASKED)
    for row, (_, model) in enumerate(_models(bank)):
        texts = ids[3 * row : 3 * row + 3]
        one = model(input_ids=texts, pixel_values=pixels[row : row + 1])
        assert_near(found.logits[row], one.logits[0])
        assert_near(found.pred_boxes[row], one.pred_boxes[0])
    with pytest.raises(UsageError, match="given a batch of 10"):
        mixed(input_ids=ids[:10], pixel_values=pixels.repeat(2, 1, 1, 1), adapter_names=ASKED)


def xclip() -> Made:
    size = {**TOWER, "mit_hidden_size": 32, "mit_intermediate_size": 48}
    size |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 4}
    config = tf.XCLIPVisionConfig(**size, image_size=16, patch_size=8, num_frames=2)
    return tf.XCLIPVisionModel(config), {}


@torch.inference_mode()
def test_pictures_of_films_one_after_another(tmp_path: Path) -> None:
    bank, pixels = bank_of(xclip, tmp_path), torch.randn(10, 3, 16, 16)
    found = attached(bank)(pixel_values=pixels, adapter_names=ASKED).pooler_output
    for row, (_, model) in enumerate(_models(bank)):
        one = model(pixel_values=pixels[2 * row : 2 * row + 2]).pooler_output
        assert_near(found[2 * row : 2 * row + 2], one)


def hifigan() -> Made:
    config = tf.SpeechT5HifiGanConfig(model_in_dim=8, upsample_initial_channel=8)
    config.upsample_rates, config.upsample_kernel_sizes = [2, 2], [4, 4]
    return tf.SpeechT5HifiGan(config), {}


@torch.inference_mode()
def test_an_input_without_a_batch_is_refused(tmp_path: Path) -> None:
    bank, sounds = bank_of(hifigan, tmp_path), torch.randn(5, 6, 8)
    mixed = attached(bank)
    found = mixed(spectrogram=sounds, adapter_names=ASKED)
    for row, (_, model) in enumerate(_models(bank)):
        assert_near(found[row], model(spectrogram=sounds[row : row + 1])[0])
    with pytest.raises(UsageError, match="no input has the 5 rows"):
        mixed(spectrogram=sounds[0], adapter_names=ASKED)
    with pytest.raises(MismatchError, match="do not come by rows"):  # two lines a row, by chance
        mixed(spectrogram=sounds[0], adapter_names=ASKED[:2])
    assert_near(
        mixed(spectrogram=sounds[0], adapter_names=["cars"]), alone(bank)["cars"](sounds[0])
    )


def efficientloftr() -> Made:
    size: dict[str, Any] = {"stage_num_blocks": [1, 1], "out_features": [16, 16]}
    size |= {"stage_stride": [2, 1], "num_attention_layers": 1, "hidden_size": 16}
    return tf.EfficientLoFTRForKeypointMatching(tf.EfficientLoFTRConfig(**size)), {}


def test_a_model_that_puts_pairs_among_one_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="matches of several pairs"):
        attached(bank_of(efficientloftr, tmp_path))


IMAGE, SIDES = 90, ((4, 4), (2, 4), (4, 6), (4, 4), (2, 2))
TEXT: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48}
TEXT |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def glm_image() -> Made:
    config = tf.GlmImageConfig(
        text_config={**TEXT, "vision_vocab_size": 96}
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        vision_config={"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4}
        | {"image_size": 16, "patch_size": 4, "spatial_merge_size": 1},
        vq_config={"embed_dim": 16, "latent_channels": 32, "num_embeddings": 40},
        image_token_id=IMAGE,
        image_start_token_id=91,
        image_end_token_id=92,
    )
    return tf.GlmImageForConditionalGeneration(config), {}


def granite4() -> Made:
    vision = {**TOWER, "hidden_size": 64, "image_size": 8, "patch_size": 2}
    config = tf.Granite4VisionConfig(
        text_config={**TEXT, "model_type": "granite"},
        vision_config={**vision, "model_type": "clip_vision_model", "num_hidden_layers": 2},
        image_token_index=IMAGE,
        image_grid_pinpoints=[[8, 8]],
        downsample_rate="1/2",
        deepstack_layer_map=[[1, 0]],
    )
    config.qformer_config.intermediate_size = 64
    return tf.Granite4VisionForConditionalGeneration(config), {}


def _glm_rows() -> list[dict[str, torch.Tensor]]:
    """Pictures of several sizes, that a codebook makes words of, and a size of what is to be."""
    rows = []
    for high, wide in SIDES:
        ids = torch.randint(3, 80, (1, 30))
        ids[0, 0], ids[0, 1 : 1 + high * wide], ids[0, 1 + high * wide] = 91, IMAGE, 92
        grid = torch.tensor([[1, high, wide], [1, 2, 2]])
        rows.append({"input_ids": ids, "pixel_values": torch.randn(high * wide, 48)})
        rows[-1] |= {"image_grid_thw": grid, "images_per_sample": torch.tensor([2])}
    return rows


def _granite_rows() -> list[dict[str, torch.Tensor]]:
    rows = []
    for _ in SIDES:
        ids = torch.randint(3, 80, (1, 14))
        ids[0, 2:12] = IMAGE
        pixels = torch.randn(1, 2, 3, 8, 8)
        rows.append(
            {"input_ids": ids, "pixel_values": pixels, "image_sizes": torch.tensor([[8] * 2])}
        )
    return rows


@torch.inference_mode()
@pytest.mark.parametrize(
    ("make", "given"), [(glm_image, _glm_rows), (granite4, _granite_rows)], ids=["glm", "granite"]
)
def test_pictures_of_which_several_layers_or_a_codebook_take_something(
    make: Callable[[], Made], given: Callable[[], list[dict[str, torch.Tensor]]], tmp_path: Path
) -> None:
    bank, rows = bank_of(make, tmp_path), given()
    batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    found = attached(bank)(**batch, adapter_names=ASKED).logits
    for row, (_, model) in enumerate(_models(bank)):
        assert_near(found[row], model(**rows[row]).logits[0])
