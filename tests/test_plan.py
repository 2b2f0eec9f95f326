"""The planner: pieces tile their tensors, memory is a number, and a task fits or does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.kernel import NumpyKernel
from randes_cli.core.kernels import strip_elements, strip_memory
from randes_cli.errors import MismatchError
from randes_cli.files.digests import chunk_count
from randes_cli.fit import fit_task, resized
from randes_cli.plan import (
    CHUNK_ELEMENTS,
    GRAM_SAMPLE,
    STEP_SAMPLE,
    Rect,
    chunks,
    is_target,
    plan_units,
    sample_runs,
)
from randes_cli.specs import Shuffle, Signs, TensorInfo, Transform
from tests.checkpoints import Packer, random_state

SIZES = st.one_of(st.integers(0, 40), st.integers(2**10 - 3, 2**10 + 3), st.integers(2**20, 2**22))


def assert_tiles(pieces: list[Rect], start: int, stop: int) -> None:
    """Whether pieces cover elements start:stop once, in order."""
    for piece in pieces:
        assert piece.start == start
        assert piece.elements > 0
        assert piece.row1 - piece.row0 == 1 or piece.col1 - piece.col0 == piece.width
        start += piece.elements
    assert start == stop


@given(SIZES, SIZES.filter(lambda n: n < 3 * 2**20))
def test_chunks_tile_a_tensor_in_order_and_are_as_many_as_counted(rows: int, cols: int) -> None:
    rows = min(rows, 3 * 2**22 // max(1, cols))
    pieces = chunks(rows, cols)
    assert_tiles(pieces, 0, rows * cols)
    assert all(piece.elements <= CHUNK_ELEMENTS for piece in pieces)
    assert len(pieces) == chunk_count(TensorInfo("w", "F32", (rows, cols)))


@given(st.integers(1, 30), st.integers(1, 50), st.integers(1, 200), st.data())
def test_strips_tile_their_chunk_and_keep_their_bound(
    rows: int, cols: int, elements: int, data: st.DataObject
) -> None:
    top = data.draw(st.integers(0, rows - 1))
    rect = Rect(top, rows, 0, cols, cols)
    strips = list(rect.split(elements))
    assert_tiles(strips, top * cols, rows * cols)
    assert all(strip.elements <= elements for strip in strips)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 25))
def test_the_part_above_a_row_is_the_rows_before_it(top: int, height: int, row: int) -> None:
    rect = Rect(top, top + height, 0, 3, 3)
    part = rect.above(row)
    rows = [] if part is None else list(range(*part.rows))
    assert rows == [r for r in range(top, top + height) if r < row]


@given(st.integers(1, 5000), st.integers(1, 200_000), st.sampled_from([STEP_SAMPLE, GRAM_SAMPLE]))
def test_sample_runs_lie_inside_the_tensor_and_never_meet(
    rows: int, cols: int, sample: tuple[int, int]
) -> None:
    runs = sample_runs(rows, cols, sample)
    assert sum(run.elements for run in runs) <= max(sample[0], 0)
    assert 1 <= len(runs) <= sample[1]
    end = 0
    for run in runs:
        assert end <= run.row0 < run.row1 <= rows
        assert 0 == run.col0 < run.col1 <= cols
        assert run.row1 - run.row0 == 1 or run.col1 == cols
        end = run.row1


def test_a_small_tensor_is_its_own_sample_and_an_empty_one_has_none() -> None:
    assert sample_runs(100, 100, STEP_SAMPLE) == [Rect(0, 100, 0, 100, 100)]
    assert sample_runs(0, 100, STEP_SAMPLE) == []


@given(st.integers(1, 200), st.integers(1, 16), st.integers(2**20, 2**34))
def test_buffers_of_all_threads_keep_within_the_memory_that_was_asked(
    layers: int, threads: int, memory: int
) -> None:
    elements = strip_elements(layers, max_memory=memory, threads=threads, chosen=None)
    assert elements == 256 or threads * strip_memory(layers, elements) <= memory


@given(st.integers(1, 40), st.integers(1, 500))
def test_the_planned_memory_is_what_a_kernel_allocates(layers: int, elements: int) -> None:
    kernel = NumpyKernel(elements, layers)
    arrays = [value for value in vars(kernel).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == strip_memory(layers, elements)


# Units


def tensors(*names: str, shape: tuple[int, ...] = (4, 4)) -> list[TensorInfo]:
    return [TensorInfo(name, "F32", shape) for name in names]


def test_layers_are_one_unit_only_where_they_are_shuffled() -> None:
    base = tensors("h.0.w", "h.1.w", "head")
    apart = plan_units(base, Transform.from_preset("hankel"))
    together = plan_units(base, Transform.from_preset("srsf"))
    assert [unit.names for unit in apart] == [("h.0.w",), ("h.1.w",), ("head",)]
    assert [unit.names for unit in together] == [("h.0.w", "h.1.w"), ("head",)]
    assert [unit.form.shuffle for unit in together] == [Shuffle.random, Shuffle.none]


def test_every_kth_layer_is_transformed_and_the_others_are_summed_as_they_are() -> None:
    base = tensors(*(f"h.{k}.w" for k in range(5)))
    units = plan_units(base, Transform(signs=Signs.hankel, every=2))
    assert {unit.names[0]: unit.signs for unit in units} == {
        "h.0.w": Signs.hankel,
        "h.1.w": Signs.none,
        "h.2.w": Signs.hankel,
        "h.3.w": Signs.none,
        "h.4.w": Signs.hankel,
    }


def test_integers_scalars_and_empty_tensors_are_in_no_unit() -> None:
    base = [
        TensorInfo("ids", "I64", (4,)),
        TensorInfo("mask", "BOOL", (4,)),
        TensorInfo("scale", "F32", ()),
        TensorInfo("none", "F32", (0, 4)),
        TensorInfo("w", "BF16", (4,)),
    ]
    assert [unit.names for unit in plan_units(base, Transform())] == [("w",)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "attn"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "attn"),
        ("h.0.attn.c_proj.weight", "attn"),
        ("model.layers.0.mlp.gate_proj.weight", "mlp"),
        ("bert.encoder.layer.0.intermediate.dense.weight", "mlp"),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.experts.3.w2.weight", "mlp"),
        ("model.decoder.layers.0.fc1.weight", "mlp"),
        ("model.layers.0.post_attention_layernorm.weight", None),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_attention_and_mlp_are_told_by_their_names(name: str, kind: str | None) -> None:
    assert [t for t in ("attn", "mlp") if is_target(name, t)] == ([kind] if kind else [])


# Fit


def infos(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape) for name, shape in shapes.items()}


def test_each_tensor_of_a_task_is_superposed_or_exact_for_a_reason() -> None:
    base = infos(w=(9, 9), head=(3, 9), embed=(20, 9), gone=(2,), plain=(4, 4), scale=())
    task = infos(w=(9, 9), head=(5, 9), embed=(22, 9), new=(7,), plain=(4, 4), scale=())
    fit = fit_task(base, task, ["w", "head", "embed", "gone"])
    assert set(fit.superposed) == {"w", "embed"}
    assert fit.exact == {
        "head": "of another shape than the base's",
        "new": "not in the base",
        "plain": "outside the targets",
        "scale": "integer or scalar",
    }
    assert fit.missing == ("gone",)
    assert fit.matched == pytest.approx((81 + 180 + 16 + 1) / (81 + 27 + 180 + 2 + 16 + 1))


def test_a_transposed_or_reshaped_tensor_is_no_resized_embedding() -> None:
    base = TensorInfo("embed.weight", "F32", (20, 9))
    assert resized(base, TensorInfo("embed.weight", "F32", (25, 9)))
    assert not resized(base, TensorInfo("embed.weight", "F32", (20, 10)))
    assert not resized(base, TensorInfo("embed.weight", "F32", (20, 3, 3)))
    assert not resized(
        TensorInfo("head.weight", "F32", (3, 9)), TensorInfo("head.weight", "F32", (5, 9))
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.decoder.class_embed.0.weight",
        "model.denoising_class_embed.weight",
        "class_embedding.weight",
        "label_embeddings.weight",
        "emb.class_embedder.embedding_table.weight",
        "y_embedder.embedding_table.weight",
    ],
)
def test_rows_of_labels_are_no_resized_embedding(name: str) -> None:
    base = TensorInfo(name, "F32", (80, 9))
    for labels in (5, 365):
        assert not resized(base, TensorInfo(name, "F32", (labels, 9)))


@pytest.mark.parametrize("rows", [25, 15])
def test_a_head_whose_rows_changed_as_the_embedding_s_is_resized_too(rows: int) -> None:
    def state(rows: int) -> dict[str, TensorInfo]:
        shapes = {"embeddings.weight": rows, "head.weight": rows, "labels.weight": rows + 1}
        return {name: TensorInfo(name, "F32", (count, 9)) for name, count in shapes.items()}

    fit = fit_task(state(20), state(rows), state(20))
    assert list(fit.superposed) == ["embeddings.weight", "head.weight"]
    assert list(fit.exact) == ["labels.weight"]


@pytest.mark.parametrize(("rows", "fits"), [(950, True), (949, False)])
def test_95_per_cent_of_the_bytes_must_match(packer: Packer, rows: int, fits: bool) -> None:
    base = random_state({"a": [rows, 4], "b": [1000 - rows, 4]})
    task = {"a": base["a"] + 0.01, "other.weight": base["b"].clone()}
    if fits:
        assert packer.pack(base, {"t": task}).exists()
        return
    with pytest.raises(MismatchError) as caught:
        packer.pack(base, {"t": task})
    said = str(caught.value)
    assert "t.safetensors: matches only 94.9 % of the base's bytes by name and shape" in said
    assert "base.safetensors: 'b'; only in the task: 'other.weight')" in said
