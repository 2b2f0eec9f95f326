"""Models inside of which rows are not rows: refused as they are found out, or answered apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

import randes_cli
from randes_cli.errors import MismatchError
from tests.live.many import ASKED, alone, assert_near, attached, bank_of, options
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states
from tests.models import GROUPED, SMALL, Made

pytestmark = pytest.mark.filterwarnings("ignore:.*are answered task by task")


class Inside(nn.Module):
    """Two layers, between which rows are put in another order, or looked at by one another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second, self.way = nn.Linear(8, 20), nn.Linear(8, 3), way
        self.queries = nn.Parameter(torch.randn(1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [5, 8]
        x = torch.tanh(self.first(x)).reshape(5, 10, 2).repeat(1, 1, 4)  # [5, 10, 8]
        if self.way == "by rows":
            return torch.as_tensor(self.second(x))
        if self.way == "time first":
            return torch.as_tensor(self.second(x.transpose(0, 1)).transpose(0, 1))
        if self.way == "copies":  # as of a picture and its prompt
            return torch.as_tensor(self.second(torch.cat([x, x * 2])).reshape(2, 5, 10, 3).sum(0))
        if self.way == "one for all":
            return torch.as_tensor(self.second(x + x[:1]))
        if self.way == "places":  # as many as there are rows, by chance
            return torch.as_tensor(self.second(x) + self.second(x[:1, :5]).sum(1)[:, None])
        queries = self.queries.expand(5, 8)  # five of the model's own
        return torch.as_tensor(self.second(x + queries[2]))


@pytest.mark.parametrize("way", ["time first", "copies", "one for all", "places", "queries"])
def test_rows_that_are_mixed_up_inside_of_a_model_are_found_out(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Inside(way)
    bank = bank_of_states(model, tmp_path, options())
    with pytest.raises(MismatchError, match="do not come by rows of the batch"):
        assert_module_answers(model, bank, torch.randn(5, 8))


def test_a_kind_of_batch_is_tried_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, ran = Inside("by rows"), []
    bank = bank_of_states(model, tmp_path, options())
    assert_module_answers(model, bank, torch.randn(5, 8))
    model.second.register_forward_hook(lambda *_: ran.append(1))
    mixed = randes_cli.attach(model, bank)
    for count in (3, 1, 1):  # the first time what has no rows is sought, too
        with torch.no_grad():
            mixed(torch.randn(5, 8), adapter_names=ASKED)
        assert len(ran) == count
        ran.clear()
    plain = mixed.detach()
    plain(torch.randn(5, 8))
    assert len(ran) == 1


class Distances(nn.Module):
    """Biases that layers and a matrix make of distances, of which there are as many as rows
    divide."""

    places: torch.Tensor

    def __init__(self, places: int) -> None:
        super().__init__()
        self.bias = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 4, bias=False))
        self.matrix = nn.Parameter(torch.randn(2, 32))
        self.register_buffer("places", torch.randn(places, 2), persistent=False)
        self.last = nn.Linear(8, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = torch.sigmoid(self.bias(self.places)).reshape(1, -1)
        x = torch.as_tensor(self.last(x))
        return x + bias[:, :40] + torch.tanh(self.places @ self.matrix).reshape(1, -1)[:, :40]


@pytest.mark.parametrize("places", [10, 11])
def test_inputs_of_a_layer_that_have_no_rows(places: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Distances(places)
    bank = bank_of_states(model, tmp_path, options(groups=2))
    assert_module_answers(model, bank, torch.randn(5, 8))


def superpoint() -> Made:
    config = tf.SuperPointConfig(encoder_hidden_sizes=[8, 8, 8, 16], decoder_hidden_size=16)
    config.descriptor_decoder_dim = 16
    return tf.SuperPointForKeypointDetection(config), {"pixel_values": torch.zeros(1, 3, 32, 32)}


def timesformer() -> Made:
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = tf.TimesformerConfig(
        **size, num_attention_heads=4, image_size=16, patch_size=8, num_frames=2
    )
    model = tf.TimesformerForVideoClassification(config)
    return model, {"pixel_values": torch.zeros(1, 2, 3, 16, 16)}


@pytest.mark.parametrize("make", [superpoint, timesformer], ids=lambda make: make.__name__)
def test_models_that_mix_rows_up_are_found_out(make: Callable[[], Made], tmp_path: Path) -> None:
    name, like = next(iter(make()[1].items()))
    with pytest.raises(MismatchError, match=r"run\s+the tasks one after the other"):
        attached(bank_of(make, tmp_path))(
            **{name: torch.rand(4, *like.shape[1:])}, adapter_names=ASKED[:4]
        )


IMAGE = 90
TEXT: dict[str, Any] = {**GROUPED, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


def qwen2_5_vl() -> Made:
    text = {**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
    }
    vision |= {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
    vision |= {"out_hidden_size": 32}
    marks = {"image_token_id": IMAGE, "vision_start_token_id": 91, "vision_end_token_id": 92}
    config = tf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, video_token_id=93, **marks)
    return tf.Qwen2_5_VLForConditionalGeneration(config), {}


def mistral3() -> Made:
    vision = {**VISION, "model_type": "pixtral", "num_hidden_layers": 1, "image_size": 32}
    config = tf.Mistral3Config(
        text_config={**TEXT, "model_type": "mistral"},
        vision_config={**vision, "patch_size": 4, "head_dim": 8},
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )
    return tf.Mistral3ForConditionalGeneration(config), {}


def words(pictures: list[list[int]]) -> torch.Tensor:
    """A row for each list of pictures, of so many pieces."""
    ids = torch.randint(3, 80, (len(pictures), 24), generator=torch.Generator().manual_seed(3))
    for row, counts in enumerate(pictures):
        place = 1
        for count in counts:
            ids[row, place : place + count] = IMAGE
            place += count + 1
    return ids


@torch.inference_mode()
def assert_answers_and_continues(
    bank: Path, batch: dict[str, torch.Tensor], rows: list[dict[str, torch.Tensor]]
) -> None:
    models, mixed = alone(bank), attached(bank)
    found = mixed(**batch, adapter_names=ASKED).logits
    given = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    made = mixed.generate(**batch, adapter_names=ASKED, **given)
    for row, task in enumerate(ASKED):
        assert_near(found[row], models[task](**rows[row]).logits[0])
        assert torch.equal(made[row], models[task].generate(**rows[row], **given)[0])


def test_rows_with_unlike_pictures_that_are_packed(tmp_path: Path) -> None:
    """Pictures of several sizes, two of a row, none, in all as many patches as rows divide."""
    bank = bank_of(qwen2_5_vl, tmp_path)
    grids = [[[1, 4, 4], [1, 2, 4]], [], [[1, 8, 8]], [[1, 4, 4]], [[1, 4, 4]]]
    sizes = [[t * h * w for t, h, w in grid] for grid in grids]
    assert sum(map(sum, sizes)) % len(ASKED) == 0
    torch.manual_seed(1)
    patches = [torch.randn(sum(size), 3 * 2 * 4 * 4) for size in sizes]
    ids = words([[patches // 4 for patches in size] for size in sizes])
    kinds = (ids == IMAGE).int()
    rows = []
    for row, grid in enumerate(grids):
        one = {"input_ids": ids[row : row + 1], "mm_token_type_ids": kinds[row : row + 1]}
        if grid:
            one |= {"pixel_values": patches[row], "image_grid_thw": torch.tensor(grid)}
        rows.append(one)
    batch = {"input_ids": ids, "mm_token_type_ids": kinds, "pixel_values": torch.cat(patches)}
    batch["image_grid_thw"] = torch.tensor([size for grid in grids for size in grid])
    assert_answers_and_continues(bank, batch, rows)


def test_an_encoder_that_packs_what_had_rows(tmp_path: Path) -> None:
    bank = bank_of(mistral3, tmp_path)
    torch.manual_seed(1)
    ids, pixels = words([[16]] * len(ASKED)), torch.randn(len(ASKED), 3, 32, 32)
    sizes = torch.tensor([[32, 32]] * len(ASKED))
    batch = {"input_ids": ids, "pixel_values": pixels, "image_sizes": sizes}
    rows = [{k: v[n : n + 1] for k, v in batch.items()} for n in range(len(ASKED))]
    assert_answers_and_continues(bank, batch, rows)


def test_labels_that_leave_rows_unequally_many_tokens_are_found_out(tmp_path: Path) -> None:
    """A model that goes on with the labelled tokens alone: how many of each row, no shape tells."""

    def masked() -> Made:
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        small = {**SMALL, **special, "cls_token_id": 1, "sep_token_id": 2}
        config = tf.ModernBertConfig(**small, sparse_prediction=True)
        return tf.ModernBertForMaskedLM(config), {}

    bank = bank_of(masked, tmp_path)
    mixed, models = attached(bank), alone(bank)
    ids = torch.randint(3, 90, (5, 8), generator=torch.Generator().manual_seed(2))

    def labels(*counts: int) -> torch.Tensor:
        return ids.where(torch.arange(8) < torch.tensor(counts)[:, None], -100)

    equal = labels(2, 2, 2, 2, 2)
    for _ in range(4):
        found = mixed(ids, labels=equal, adapter_names=ASKED).logits.reshape(5, 2, -1)
        for row, task in enumerate(ASKED):
            assert_near(found[row], models[task](ids[[row]], labels=equal[[row]]).logits)
    for unequal in (labels(1, 3, 2, 1, 3), labels(4, 2, 1, 2, 1)):
        with pytest.raises(MismatchError, match="do not come by rows of the batch"):
            mixed(ids, labels=unequal, adapter_names=ASKED)
