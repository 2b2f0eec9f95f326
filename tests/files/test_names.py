"""Names with another prefix are mapped when that is one to one, and only then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.checkpoint.names import Naming, match_names
from randes_cli.specs import TensorInfo

LAYERS = [f"layers.{n}.{part}.weight" for n in range(4) for part in ("attn.q", "mlp.up", "norm")]
BASE = ["embed.tokens.weight", *LAYERS]


def record(naming: Naming) -> TaskRecord:
    return TaskRecord(
        name="t",
        index=0,
        seed=0,
        group=0,
        source="",
        fingerprint="",
        metadata={},
        prefix=naming.prefix,
        unprefixed=naming.unprefixed,
    )


@pytest.mark.parametrize("ours", ["", "model.", "bert.", "transformer."])
@pytest.mark.parametrize(
    "theirs",
    [
        "",
        "model.",
        "module.",
        "_orig_mod.",
        "base_model.model.",
        "module._orig_mod.model.",
        "base_model.model.model.",
    ],
)
def test_a_prefix_is_mapped_and_given_back(ours: str, theirs: str) -> None:
    base = [ours + name for name in BASE] + ["lm_head.proj.weight"]
    task = [theirs + name for name in BASE] + ["classifier.weight", "lm_head.proj.weight"]
    naming = match_names(base, task)
    assert naming is not None
    back = naming.names or {}
    mapped = {theirs_name: name for name, theirs_name in back.items()}
    assert [mapped.get(theirs + name, theirs + name) for name in BASE] == base[:-1]
    made = record(naming)
    for name in BASE:
        assert made.output_name(ours + name) == theirs + name
    assert "classifier.weight" not in mapped
    assert made.output_name("lm_head.proj.weight") == "lm_head.proj.weight"


def test_equal_names_are_left_alone() -> None:
    naming = match_names(BASE, [*BASE, "extra.thing.weight"])
    assert naming is not None
    assert not naming.names


def test_two_names_that_would_become_one_are_not_mapped() -> None:
    task = ["module." + name for name in BASE] + [BASE[0]]
    assert match_names(BASE, task) is None


def test_unrelated_names_are_left_alone() -> None:
    naming = match_names(BASE, ["a.b.c", "weight", "norm.weight"])
    assert naming is not None
    assert not naming.names


def test_a_name_that_keeps_its_own_form_is_given_back_as_it_was() -> None:
    base = ["model." + name for name in BASE] + ["model.head.proj.weight"]
    task = [*BASE, "model.head.proj.weight"]
    naming = match_names(base, task)
    assert naming is not None
    assert naming.unprefixed == {"model.head.proj.weight"}
    assert record(naming).output_name("model.head.proj.weight") == "model.head.proj.weight"
    assert record(naming).output_name("model." + BASE[0]) == BASE[0]


@pytest.mark.parametrize(
    ("base", "task"),
    [
        (["layers.0.q.weight", "layers.0.k.weight"], ["layers.9.q.weight"]),
        (["h.0.mlp.up.weight", "h.1.mlp.up.weight"], ["model.h.7.mlp.up.weight"]),
        ([f"{tower}.{name}" for tower in ("query", "context.model") for name in BASE], BASE),
    ],
)
def test_another_layer_or_one_of_two_towers_is_no_prefix(base: list[str], task: list[str]) -> None:
    naming = match_names(base, task)
    assert naming is not None and not naming.names


def test_of_two_towers_the_one_with_the_shapes_is_meant() -> None:
    def tensors(names: list[str], width: int) -> dict[str, TensorInfo]:
        return {name: TensorInfo(name, "F32", (4, width)) for name in names}

    image, text = ([f"{tower}.{name}" for name in BASE] for tower in ("image.model", "text"))
    base = {**tensors(image, 8), **tensors(text, 6)}
    for names, width in ((image, 8), (text, 6)):
        naming = match_names(base, tensors(BASE, width))
        assert naming is not None and list(naming.names or ()) == names


WORDS = st.lists(st.sampled_from(["a", "b", "model", "0", "1", "weight"]), min_size=1, max_size=5)
NAMES = st.sets(WORDS.map(".".join), max_size=12)


@given(base=NAMES, task=NAMES)
def test_whatever_the_names_mapping_loses_none(base: set[str], task: set[str]) -> None:
    naming = match_names(base, task)
    if naming is None or not naming.names:
        return
    mapped = {theirs: ours for ours, theirs in naming.names.items()}
    held = [mapped.get(name, name) for name in task]
    assert len(set(held)) == len(held)
    made = record(naming)
    back = {made.output_name(name) if name in base else name for name in held}
    assert back == task
