"""Checkpoints that differ from their base in more than values."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli.api import Bank
from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.core.kernel import NumpyKernel
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.bank import BankFile
from randes_cli.files.base import open_base
from randes_cli.ops.verify import measure
from randes_cli.read.places import UnpackOptions
from randes_cli.read.retrieve import Retrieval
from randes_cli.read.unpack import UnpackReport, unpack
from randes_cli.reports import PackReport
from randes_cli.specs import OpenOptions, PackOptions, Rest, RunOptions, TaskInput, Transform

State = dict[str, torch.Tensor]
RUN = RunOptions(threads=2)


def model(seed: int = 0, *, vocabulary: int = 20, width: int = 16, layers: int = 3) -> State:
    """A decoder's weights: the base's for seed 0, a fine-tune's of it for any other."""
    generator = torch.Generator().manual_seed(0)
    made = {"model.embed_tokens.weight": torch.randn(40, width, generator=generator)[:vocabulary]}
    for layer in range(layers):
        for part, rows in (("self_attn.q_proj", width), ("mlp.up_proj", 2 * width)):
            name = f"model.layers.{layer}.{part}.weight"
            made[name] = torch.randn(rows, width, generator=generator)
    made["lm_head.weight"] = torch.randn(40, width, generator=generator)[:vocabulary]
    if seed:
        generator.manual_seed(seed)
        for name, tensor in made.items():
            made[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
    return made


def save(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def round_trip(
    tmp_path: Path,
    base: State,
    *tasks: State,
    options: PackOptions | None = None,
    out: UnpackOptions | None = None,
) -> tuple[PackReport, list[UnpackReport], list[State]]:
    """Pack tasks as t0, t1, …, unpack them all, and read them back with the stock library."""
    source = save(base, tmp_path / "base.safetensors")
    inputs = [
        TaskInput(f"t{number}", str(save(task, tmp_path / f"t{number}.safetensors")))
        for number, task in enumerate(tasks)
    ]
    bank = tmp_path / "bank.randes"
    packed = pack(str(source), inputs, bank, options, RUN)
    unpacked = unpack(bank, None, tmp_path / "out", out or UnpackOptions(), RUN)
    return packed, unpacked, [load_file(tmp_path / "out" / f"{i.name}.safetensors") for i in inputs]


def assert_close(back: State, wanted: State, *, exact: tuple[str, ...] = ()) -> None:
    """Names, dtypes and shapes agree; values to within half a step, or to the bit."""
    assert set(back) == set(wanted)
    for name, tensor in wanted.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape), name
        if name in exact:
            assert torch.equal(back[name], tensor), name
        else:
            assert torch.allclose(back[name].double(), tensor.double(), atol=0.02 / 32), name


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


def test_new_special_tokens_stay_exact_among_other_tasks(tmp_path: Path) -> None:
    base, task = model(0, vocabulary=20), model(1, vocabulary=23)
    other = model(2, vocabulary=20)
    _, _, (back, unlike) = round_trip(tmp_path, base, task, other)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(back[name][20:], task[name][20:])
        assert not torch.equal(back[name][:20], task[name][:20])
        assert unlike[name].shape == other[name].shape


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def test_heads_of_different_sizes_are_kept_exactly(tmp_path: Path) -> None:
    base, two, nine = model(0), model(1), model(2)
    for state, classes in ((base, 5), (two, 2), (nine, 9)):
        state["classifier.weight"] = torch.randn(classes, 16)
        state["classifier.bias"] = torch.randn(classes)
    exact = ("classifier.weight", "classifier.bias")
    packed, _, (back_two, back_nine) = round_trip(tmp_path, base, two, nine)
    assert packed.kept_exactly["t0"]["classifier.bias"] == "shape [2], the base's is [5]"
    for back, task in ((back_two, two), (back_nine, nine)):
        for name in exact:
            assert torch.equal(back[name], task[name])


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


@pytest.mark.parametrize("theirs", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ours", [torch.float32, torch.float16, torch.bfloat16])
def test_a_task_in_another_dtype_comes_back_in_its_own(
    ours: torch.dtype, theirs: torch.dtype, tmp_path: Path
) -> None:
    base = {name: tensor.to(ours) for name, tensor in model(0).items()}
    task = {name: tensor.to(theirs) for name, tensor in model(1).items()}
    _, _, (back,) = round_trip(tmp_path, base, task)
    assert set(back) == set(task)
    for name, tensor in task.items():
        assert back[name].dtype == theirs
        spread = 0.02 / 16 + 2 * torch.finfo(theirs).eps * tensor.abs().double()
        assert ((back[name].double() - tensor.double()).abs() <= spread).all()


def test_values_beyond_half_precision_are_refused_or_counted(tmp_path: Path) -> None:
    base, task = model(0), model(1)
    for state in (base, task):
        state["model.layers.0.mlp.up_proj.weight"][0, :3] = torch.tensor([70_000.0, -1e6, 65_504.0])
    with pytest.raises(MismatchError, match=r"2 values are beyond the range .* --saturate"):
        round_trip(tmp_path, base, task, out=UnpackOptions(dtype="F16"))
    assert not list((tmp_path / "out").glob("*"))
    clipped = UnpackOptions(dtype="F16", saturate=True)
    _, (report,), (back,) = round_trip(_folder(tmp_path, "second"), base, task, out=clipped)
    assert report.saturated == 2
    row = back["model.layers.0.mlp.up_proj.weight"][0, :3]
    assert row.tolist() == [65_504.0, -65_504.0, 65_504.0]


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


PREFIXES = [("", "model."), ("module.", ""), ("_orig_mod.module.", ""), ("bert.", "encoder.")]


@pytest.mark.parametrize(("theirs", "ours"), PREFIXES)
def test_names_with_another_prefix_are_mapped_said_and_given_back(
    theirs: str, ours: str, tmp_path: Path
) -> None:
    base = {ours + name: tensor for name, tensor in model(0).items()}
    task = {theirs + name: tensor for name, tensor in model(1).items()}
    task["score.weight"] = torch.randn(3, 16)
    packed, _, (back,) = round_trip(tmp_path, base, task)
    (note,) = packed.tasks[0].notes
    assert note.startswith(f"{len(task) - 1} names have {theirs!a} where the base has {ours!a}")
    assert_close(back, task, exact=("score.weight",))
    with Bank.open(tmp_path / "bank.randes") as bank:
        assert set(bank.retrieve("t0")) == set(task)


def test_a_task_with_another_prefix_is_added_measured_and_removed(tmp_path: Path) -> None:
    base = model(0)
    round_trip(tmp_path, base, model(1))
    bank = tmp_path / "bank.randes"
    with BankFile(bank) as file:
        before = file.read_whole("sum/0/lm_head.weight").tobytes()
    wrapped = {"module." + name: tensor for name, tensor in model(2).items()}
    path = save(wrapped, tmp_path / "wrapped.safetensors")
    add(bank, [TaskInput("wrapped", str(path))])
    unpack(bank, ["wrapped"], tmp_path / "again.safetensors", UnpackOptions(), RUN)
    assert set(load_file(tmp_path / "again.safetensors")) == set(wrapped)
    with BankFile(bank) as file:
        (check,) = measure(file, [("wrapped", str(path))], RUN)
    assert check.cosine > 0.5
    remove(bank, ["wrapped"])
    with BankFile(bank) as file:
        assert file.read_whole("sum/0/lm_head.weight").tobytes() == before


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
        folder = _folder(tmp_path, name)
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


class Losing(NumpyKernel):
    """A kernel that loses one value a strip, slowly."""

    def retrieve_onto(self, *given: Any) -> int:
        time.sleep(0.05)
        return 1

    retrieve = retrieve_onto  # type: ignore[assignment]


def test_saturated_values_are_counted_whichever_thread_meets_them(tmp_path: Path) -> None:
    round_trip(tmp_path, model(0), model(1))
    with BankFile(tmp_path / "bank.randes") as bank:
        retrieval = Retrieval(bank, open_base(bank, None), bank.manifest.tasks[0])
        pieces = [
            retrieval.pieces(name)[0] for name in retrieval.tensors if retrieval.superposed(name)
        ]
        rooms = [np.empty(piece.tensor.nbytes, np.uint8) for piece in pieces]
        threads = [
            threading.Thread(target=retrieval.fill, args=(Losing(2**16, 1), piece, room))
            for piece, room in zip(pieces, rooms, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(threads) > 3
    assert retrieval.saturated == len(threads)


def test_a_constant_is_kept_whatever_its_values(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    base = {"w.weight": torch.randn(64, 64), "attn_mask": torch.full((4, 4), -torch.inf).triu(1)}
    base["out.scores"] = torch.full((3,), torch.nan)
    same = {**base, "w.weight": base["w.weight"] + 0.01}
    grown = {**same, "attn_mask": torch.full((8, 8), -torch.inf).triu(1)}
    options = PackOptions(transform=Transform(targets="w", rest=Rest.own))
    _, _, (first, second) = round_trip(tmp_path, base, same, grown, options=options)
    for back, wanted in ((first, same), (second, grown)):
        assert torch.equal(back["attn_mask"], wanted["attn_mask"])
        assert torch.isnan(back["out.scores"]).all()
    broken = {**same, "out.scores": torch.tensor([1.0, torch.inf, 0.0])}
    with pytest.raises(CheckpointError, match=r"tensor 'out\.scores' has NaN or infinite values"):
        round_trip(tmp_path / "broken", base, broken, options=options)
