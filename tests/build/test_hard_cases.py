"""Checkpoints that differ from their base in more than values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from randes_cli.build.pack import pack
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.fit import RESHAPED
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import OpenOptions, PackOptions, Rest, TaskInput, Transform
from tests.build.decoder import RUN, assert_close, model, round_trip, sub_folder


def test_tied_embeddings_are_neither_invented_nor_dropped(tmp_path: Path) -> None:
    untied, tied = model(0), model(1)
    del tied["lm_head.weight"]
    _, _, (back,) = round_trip(tmp_path, untied, tied)
    assert_close(back, tied)

    base, task = model(0), model(1)
    del base["lm_head.weight"]
    (tmp_path / "second").mkdir()
    packed, _, (back,) = round_trip(tmp_path / "second", base, task)
    assert packed.kept_exactly["t0"] == {"lm_head.weight": "not in the base"}
    assert_close(back, task, exact=("lm_head.weight",))


@pytest.mark.parametrize(("ours", "theirs"), [(20, 27), (27, 20)], ids=["grown", "shrunk"])
def test_a_resized_vocabulary_keeps_its_common_rows_superposed(
    ours: int, theirs: int, tmp_path: Path
) -> None:
    base, task = model(0, vocabulary=ours), model(1, vocabulary=theirs)
    name = "model.embed_tokens.weight"
    task[name][20:] = 5.0
    packed, _, (back,) = round_trip(tmp_path, base, task)
    assert packed.kept_exactly["t0"] == {}
    assert_close(back, task)
    assert torch.equal(back[name][20:], task[name][20:])


def test_a_resized_table_of_matrices_keeps_its_new_rows_exactly(tmp_path: Path) -> None:
    base = {"embed.weight": torch.randn(12, 3, 8), "w": torch.randn(16, 16)}
    task = {name: value + 0.01 * torch.randn(value.shape) for name, value in base.items()}
    task["embed.weight"] = torch.cat([task["embed.weight"], torch.randn(5, 3, 8)])
    packed, _, (back,) = round_trip(tmp_path, base, task)
    assert packed.kept_exactly["t0"] == {}
    assert_close(back, task)
    assert torch.equal(back["embed.weight"][12:], task["embed.weight"][12:])


def test_new_special_tokens_stay_exact_among_other_tasks(tmp_path: Path) -> None:
    base, task = model(0, vocabulary=20), model(1, vocabulary=23)
    other = model(2, vocabulary=20)
    _, _, (back, unlike) = round_trip(tmp_path, base, task, other)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(back[name][20:], task[name][20:])
        assert not torch.equal(back[name][:20], task[name][:20])
        assert unlike[name].shape == other[name].shape


def test_heads_of_different_sizes_are_kept_exactly(tmp_path: Path) -> None:
    base, two, nine = model(0), model(1), model(2)
    for state, classes in ((base, 5), (two, 2), (nine, 9)):
        state["classifier.weight"] = torch.randn(classes, 16)
        state["classifier.bias"] = torch.randn(classes)
    exact = ("classifier.weight", "classifier.bias")
    packed, _, (back_two, back_nine) = round_trip(tmp_path, base, two, nine)
    assert packed.kept_exactly["t0"]["classifier.bias"] == RESHAPED
    for back, task in ((back_two, two), (back_nine, nine)):
        for name in exact:
            assert torch.equal(back[name], task[name])


def test_a_small_head_may_take_the_place_of_most_of_the_base(tmp_path: Path) -> None:
    """Of the smallest vision models, the thousand classes are more than three quarters."""
    base, task = model(0), model(1)
    base["classifier.weight"], task["classifier.weight"] = torch.randn(900, 16), torch.randn(2, 16)
    _, _, (back,) = round_trip(tmp_path, base, task)
    assert_close(back, task, exact=("classifier.weight",))


@pytest.mark.parametrize(("before", "after"), [(900, 400), (2, 900)])
def test_heads_that_are_most_of_base_and_task(tmp_path: Path, before: int, after: int) -> None:
    """Of EfficientNet and MobileNet, on a few hundred classes."""
    base, task, names = model(0), model(1), ("classifier.weight", "classifier.bias")
    for labels, one in ((before, base), (after, task)):
        one.update({names[0]: torch.randn(labels, 16), names[1]: torch.randn(labels)})
    _, _, (back,) = round_trip(tmp_path, base, task)
    assert_close(back, task, exact=names)


def test_layers_of_other_rows_are_no_head(tmp_path: Path) -> None:
    base, other = ({f"{n}.k.weight": torch.randn(k, 16) for n in range(5)} for k in (32, 64))
    same = {"w": torch.randn(64, 16)}
    with pytest.raises(MismatchError, match="another base"):
        round_trip(tmp_path, {**base, **same}, {**other, **same})


def test_a_detector_of_other_labels_is_exact_and_leaves_the_head_of_others_alone(
    tmp_path: Path,
) -> None:
    """DETR calls its head `class_embed`: no row of it is the base's label."""
    name = "decoder.class_embed.0.weight"
    base, ours, other = model(0), model(1), model(2)
    base[name] = torch.randn(80, 16)
    ours[name] = base[name] + 0.02 * torch.randn(80, 16)
    other[name] = torch.randn(5, 16)
    packed, _, (back, unlike) = round_trip(tmp_path, base, ours, other)
    assert packed.kept_exactly["t1"] == {name: RESHAPED}
    assert torch.equal(unlike[name], other[name])
    assert torch.allclose(back[name], ours[name], atol=0.02 / 32)


def test_a_task_whose_head_was_removed_comes_back_without_it(tmp_path: Path) -> None:
    base, task = model(0, vocabulary=40), model(1, vocabulary=40)
    del task["lm_head.weight"]
    packed, _, (back,) = round_trip(tmp_path, base, task)
    assert packed.tasks[0].missing == 1
    assert_close(back, task)


def test_a_task_that_is_a_small_part_of_the_base_is_refused(tmp_path: Path) -> None:
    part = {"lm_head.weight": model(1)["lm_head.weight"]}
    with pytest.raises(MismatchError, match=r"matches only .* of the base's bytes"):
        round_trip(tmp_path, model(0), part)


@pytest.mark.parametrize("transform", ["two-sided", "hankel", "srsf"])
def test_fused_experts_are_superposed_like_any_matrix(transform: str, tmp_path: Path) -> None:
    base, task = model(0), model(1)
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.experts.gate_up_proj"
        base[name] = torch.randn(4, 16, 24)
        task[name] = base[name] + 0.02 * torch.randn(4, 16, 24)
    options = PackOptions(transform=Transform.from_preset(transform))
    packed, _, (back,) = round_trip(tmp_path, base, task, options=options)
    assert packed.tasks[0].own == 0
    assert_close(back, task)


@pytest.mark.parametrize("transform", ["two-sided", "hankel", "srsf"])
def test_thousands_of_experts_by_name_go_through(transform: str, tmp_path: Path) -> None:
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"
        for layer in range(4)
        for expert in range(256)
        for part in ("gate_proj", "up_proj", "down_proj")
    ]
    base = {name: torch.full((2, 4), float(number)) for number, name in enumerate(names)}
    task = {"module." + name: tensor + 0.5 for name, tensor in base.items()}
    options = PackOptions(transform=Transform.from_preset(transform))
    packed, _, (back,) = round_trip(tmp_path, base, task, options=options)
    assert packed.tasks[0].superposed == len(names)
    assert set(back) == set(task)
    assert all(torch.allclose(back[name], task[name], atol=0.5 / 64) for name in task)


def test_conv1d_weights_are_shuffled_among_layers_as_they_are(tmp_path: Path) -> None:
    base = {f"h.{n}.attn.c_attn.weight": torch.randn(8, 24) for n in range(4)}
    task = {name: tensor + 0.02 * torch.randn(8, 24) for name, tensor in base.items()}
    options = PackOptions(transform=Transform.from_preset("srsf"))
    _, _, (back,) = round_trip(tmp_path, base, task, options=options)
    assert_close(back, task)


def test_integers_scalars_and_empty_tensors_are_exact(tmp_path: Path) -> None:
    base, task = model(0), model(1)
    odd = {
        "position_ids": torch.arange(8).reshape(1, 8),
        "num_batches_tracked": torch.tensor(3),
        "logit_scale": torch.tensor(2.5),
        "mask": torch.tensor([True, False]),
        "bytes": torch.arange(256, dtype=torch.int16).to(torch.uint8),
        "empty": torch.zeros(0, 16),
        "none": torch.zeros(3, 0),
    }
    base.update(odd)
    task.update({name: tensor.clone() for name, tensor in odd.items()})
    task["num_batches_tracked"] += 1
    task["logit_scale"] += 0.001
    packed, _, (back,) = round_trip(tmp_path, base, task)
    assert packed.tasks[0].own == 2
    assert_close(back, task, exact=tuple(odd))


def test_a_pickled_task_packs_like_the_same_safetensors(tmp_path: Path) -> None:
    base, task = model(0), model(1)
    round_trip(tmp_path, base, task)
    torch.save({"state_dict": task, "epoch": 3}, tmp_path / "t0.bin")
    options = PackOptions(opening=OpenOptions(allow_pickle=True))
    inputs = [TaskInput("t0", str(tmp_path / "t0.bin"))]
    pack(str(tmp_path / "base.safetensors"), inputs, tmp_path / "two.randes", options, RUN)
    with BankFile(tmp_path / "bank.randes") as one, BankFile(tmp_path / "two.randes") as two:
        assert one.manifest.tasks[0].fingerprint == two.manifest.tasks[0].fingerprint
        for key in one.header.tensors:
            if key.startswith(("sum/", "base/", "own/", "stats/")):
                assert one.read_whole(key).tobytes() == two.read_whole(key).tobytes()


def test_an_open_clip_folder_keeps_its_own_file_names(tmp_path: Path) -> None:
    for name, seed in (("base", 0), ("photos", 1)):
        folder = sub_folder(tmp_path, name)
        state = model(seed)
        state["logit_scale"] = torch.tensor(2.6)
        torch.save(state, folder / "open_clip_pytorch_model.bin")
        (folder / "open_clip_config.json").write_text("{}")
    options = PackOptions(opening=OpenOptions(allow_pickle=True))
    photos = TaskInput("photos", str(tmp_path / "photos"))
    pack(str(tmp_path / "base"), [photos], tmp_path / "bank.randes", options, RUN)
    unpack(tmp_path / "bank.randes", ["photos"], tmp_path / "out", UnpackOptions(), RUN)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    back = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert_close(back, state, exact=("logit_scale",))


def test_a_constant_is_kept_whatever_its_values(tmp_path: Path) -> None:
    for name in ("broken", "asked"):
        (tmp_path / name).mkdir()
    base = {"w.weight": torch.randn(64, 64), "attn_mask": torch.full((4, 4), -torch.inf).triu(1)}
    base["out.scores"] = torch.full((3,), torch.nan)
    same = {**base, "w.weight": base["w.weight"] + 0.01}
    grown = {**same, "attn_mask": torch.full((8, 8), -torch.inf).triu(1)}
    options = PackOptions(transform=Transform(targets="w", rest=Rest.own))
    _, _, (first, second) = round_trip(tmp_path, base, same, grown, options=options)
    for back, wanted in ((first, same), (second, grown)):
        assert torch.equal(back["attn_mask"], wanted["attn_mask"])
        assert torch.isnan(back["out.scores"]).all()
    with pytest.raises(CheckpointError, match=r"--exact out\.scores keeps every task's as it is"):
        round_trip(tmp_path / "asked", base, same)
    kept = PackOptions(exact=r"out\.scores")
    _, _, (third,) = round_trip(tmp_path / "asked", base, same, options=kept)
    assert torch.isnan(third["out.scores"]).all()
    broken = {**same, "out.scores": torch.tensor([1.0, torch.inf, 0.0])}
    with pytest.raises(CheckpointError, match=r"tensor 'out\.scores' has NaN or infinite values"):
        round_trip(tmp_path / "broken", base, broken, options=options)
