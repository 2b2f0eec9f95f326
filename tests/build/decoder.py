"""A small decoder's weights, through a bank and out again."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from randes_cli.build.pack import pack
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import UnpackReport, unpack
from randes_cli.reports import PackReport
from randes_cli.specs import PackOptions, RunOptions, TaskInput

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


def sub_folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name
