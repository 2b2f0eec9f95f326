"""Layer shuffles: which tensors are layers of one type, and how a task moves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.shuffle import group_by_type, layer_numbers, layer_order, layer_type
from randes_cli.core.signs import random_bytes
from randes_cli.specs import Shuffle, TensorInfo

LAYERS = [
    ("model.layers.11.self_attn.q_proj.weight", "model.layers.*.self_attn.q_proj.weight"),
    ("bert.encoder.layer.3.output.dense.bias", "bert.encoder.layer.*.output.dense.bias"),
    ("transformer.h.0.attn.c_attn.weight", "transformer.h.*.attn.c_attn.weight"),
    (
        "encoder.block.2.layer.1.DenseReluDense.wi_0.weight",
        "encoder.block.*.layer.*.DenseReluDense.wi_0.weight",
    ),
    (
        "vision_model.encoder.layers.7.mlp.fc1.weight",
        "vision_model.encoder.layers.*.mlp.fc1.weight",
    ),
    (
        "model.decoder.layers.5.encoder_attn.k_proj.weight",
        "model.decoder.layers.*.encoder_attn.k_proj.weight",
    ),
    (
        "model.layers.3.block_sparse_moe.experts.6.w1.weight",
        "model.layers.*.block_sparse_moe.experts.*.w1.weight",
    ),
]
ALONE = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.encoder.conv1.weight",
    "text_model.embeddings.position_embedding.weight",
    "shared.weight",
]


@pytest.mark.parametrize(("name", "kind"), LAYERS)
def test_layer_numbers_of_the_common_families_are_seen(name: str, kind: str) -> None:
    assert layer_type(name) == kind


@pytest.mark.parametrize("name", ALONE)
def test_digits_inside_a_word_are_no_layer_number(name: str) -> None:
    assert layer_type(name) == name
    assert layer_numbers(name) == ()


def test_layers_come_in_the_order_of_their_numbers_not_of_their_text() -> None:
    names = ["h.10.w", "h.9.w", "h.1.w"]
    groups = group_by_type(TensorInfo(name, "F32", (2, 3)) for name in names)
    assert groups == {"h.*.w": ["h.1.w", "h.9.w", "h.10.w"]}


def test_experts_are_ordered_by_layer_and_then_by_expert() -> None:
    names = ["l.1.experts.0.w1", "l.0.experts.10.w1", "l.0.experts.2.w1"]
    groups = group_by_type(TensorInfo(name, "F32", (2, 3)) for name in names)
    assert groups == {
        "l.*.experts.*.w1": ["l.0.experts.2.w1", "l.0.experts.10.w1", "l.1.experts.0.w1"]
    }


def test_layers_of_one_type_but_two_shapes_are_two_groups() -> None:
    shapes = {"h.0.w": (2, 3), "h.1.w": (2, 3), "h.2.w": (4, 3), "norm": (3,)}
    groups = group_by_type(TensorInfo(name, "F32", shape) for name, shape in shapes.items())
    assert groups == {"h.*.w|2x3": ["h.0.w", "h.1.w"], "h.*.w|4x3": ["h.2.w"], "norm": ["norm"]}


def test_groups_do_not_depend_on_the_order_of_the_tensors_of_a_type() -> None:
    tensors = [TensorInfo(f"h.{layer}.w", "F32", (2, 3)) for layer in range(12)]
    assert group_by_type(tensors) == group_by_type(reversed(tensors))


@given(
    st.sampled_from(list(Shuffle)), st.integers(0, 2**40), st.integers(0, 99), st.integers(1, 70)
)
def test_every_order_is_a_permutation(shuffle: Shuffle, seed: int, index: int, layers: int) -> None:
    order = layer_order(shuffle, seed=seed, index=index, layer_kind="h.*.w", layers=layers)
    assert sorted(order) == list(range(layers))


def test_the_random_order_is_the_fisher_yates_shuffle_of_its_stream() -> None:
    stream = random_bytes("shuffle", 42, "h.*.w", 8 * 4)
    words = [int.from_bytes(stream[8 * k : 8 * k + 8], "little") for k in range(4)]
    expected = [0, 1, 2, 3, 4]
    for position, word in zip((4, 3, 2, 1), words, strict=True):
        partner = word % (position + 1)
        expected[position], expected[partner] = expected[partner], expected[position]
    order = layer_order(Shuffle.random, seed=42, index=0, layer_kind="h.*.w", layers=5)
    assert order == expected


def test_golden_orders_stay_as_they_are() -> None:
    def order(seed: int) -> list[int]:
        return layer_order(
            Shuffle.random, seed=seed, index=0, layer_kind="layers.*.weight", layers=8
        )

    assert order(42) == [4, 5, 2, 6, 7, 1, 3, 0]
    assert order(43) == [4, 3, 2, 5, 7, 1, 0, 6]


def test_the_random_order_depends_on_the_seed_and_the_type_but_not_on_the_index() -> None:
    def order(seed: int, index: int, kind: str) -> list[int]:
        return layer_order(Shuffle.random, seed=seed, index=index, layer_kind=kind, layers=20)

    assert order(1, 0, "a") == order(1, 9, "a")
    assert order(1, 0, "a") != order(2, 0, "a")
    assert order(1, 0, "a") != order(1, 0, "b")


def test_a_shift_moves_each_layer_its_index_places_deeper_with_wrap_around() -> None:
    order = layer_order(Shuffle.shift, seed=0, index=2, layer_kind="h.*.w", layers=5)
    deeper = {layer: position for position, layer in enumerate(order)}
    assert deeper == {0: 2, 1: 3, 2: 4, 3: 0, 4: 1}
    assert layer_order(Shuffle.shift, seed=0, index=5, layer_kind="x", layers=5) == list(range(5))


def test_every_layer_is_equally_likely_at_every_position() -> None:
    counts = [[0] * 4 for _ in range(4)]
    for seed in range(2000):
        order = layer_order(Shuffle.random, seed=seed, index=0, layer_kind="h.*.w", layers=4)
        for position, layer in enumerate(order):
            counts[position][layer] += 1
    assert all(abs(count - 500) < 100 for row in counts for count in row)
