"""Tasks retrieved on a device, from a bank that stays there, have the bits of `unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

import randes_cli
from randes_cli import Bank, PackOptions, Pool, TaskInput, Transform, pack
from randes_cli.core.compiled.kernel import processor
from randes_cli.errors import BankDamaged
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import Rest
from tests.checkpoints import PRESET_NAMES
from tests.live.many import bank_of, options, pack_folders
from tests.live.test_from_bank import assert_same
from tests.live.test_mixed import wide_llama
from tests.live.test_mixed_sizes import heads
from tests.models import Made, llama


def assert_swaps(
    bank: Path,
    tasks: tuple[str, ...] = ("sun", "cars", "sun"),
    ways: tuple[bool, ...] = (True, False),
) -> Any:
    """By compiled code, and without it, as on a device: by torch's operations, or by kernels."""
    model = randes_cli.transformers.from_bank(bank)
    wanted = {task: randes_cli.transformers.from_bank(bank, task) for task in tasks}
    for compiled in ways:
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            if not compiled:
                patch.setattr("randes_cli.live.pool.pool.known", lambda dtype: False)
            for parameter in model.parameters():
                parameter.zero_()
            with Pool(bank, model, resident=True) as pool:
                for task in tasks:
                    with pool.use(task):
                        assert_same(model, wanted[task])
    return model


@pytest.mark.parametrize(
    ("transform", "bits", "shape"),
    [
        ("two-sided", 16, (300, 1000)),
        ("two-sided", 2, (40, 5000)),
        ("two-sided", 1, (33, 9001)),
        ("two-sided", 8, (1, 140_000)),
        ("hankel", 8, (301, 1003)),
        ("hankel", 16, (7, 40_000)),
        ("rsf", 3, (33, 9001)),
        ("srsf", 1, (301, 1003)),
        ("ta", 4, (5000, 33)),
    ],
)
def test_matrices_of_many_parts_and_ragged_rows(
    tmp_path: Path, transform: str, bits: int, shape: tuple[int, int]
) -> None:
    source = torch.Generator().manual_seed(1)
    module = torch.nn.Linear(shape[1], shape[0], bias=False)
    base = {"weight": torch.randn(shape, generator=source)}
    given = {}
    for task in ("cars", "sun"):
        given[task] = {"weight": base["weight"] + 0.01 * torch.randn(shape, generator=source)}
    for name, tensors in {"base": base, **given}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    bank = tmp_path / "b.randes"
    pack(
        str(tmp_path / "base.safetensors"),
        [TaskInput(task, str(tmp_path / f"{task}.safetensors")) for task in given],
        bank,
        options(transform, bits=bits),
    )
    for version, coefficient in ((1, None), (3, -0.3), (99, 0.7)):
        processor(version)
        with Pool(bank, module, coefficient=coefficient) as pool, Bank.open(bank) as opened:
            for task in ("cars", "sun"):
                wanted = opened.retrieve(task, coefficient=coefficient)["weight"]
                with pool.use(task):
                    assert torch.equal(module.weight, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("transform", PRESET_NAMES)
def test_swaps_of_every_transform(tmp_path: Path, transform: str, dtype: torch.dtype) -> None:
    assert_swaps(bank_of(llama, tmp_path, options(transform, groups=2), dtype))


@pytest.mark.parametrize("transform", ["two-sided", "hankel"])
@pytest.mark.parametrize("share", [1, 4])
@pytest.mark.parametrize("bits", [8, 3, 2, 1])
def test_swaps_of_few_bits_and_shares(
    tmp_path: Path, bits: int, share: int, transform: str
) -> None:
    given = options(transform, bits=bits, share=share, groups=2)
    assert_swaps(bank_of(wide_llama, tmp_path, given, torch.bfloat16))


def small() -> Made:
    config = tf.LlamaConfig(
        hidden_size=32,
        intermediate_size=40,
        vocab_size=70,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    return tf.LlamaForCausalLM(config), llama()[1]


def take_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap by kernels here too."""
    monkeypatch.setattr("randes_cli.live.pool.resident.kernels_for", lambda device: True)
    monkeypatch.setattr("randes_cli.live.pool.pool.known", lambda dtype: False)
    monkeypatch.setattr("randes_cli.live.pool.pool.thread_count", lambda given: 1)


@pytest.mark.parametrize(
    ("of", "model"), [(torch.float32, torch.float16), (torch.float16, torch.float32)], ids=str
)
def test_the_kernel_writes_models_of_another_dtype_than_the_banks(
    tmp_path: Path, of: torch.dtype, model: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(small, tmp_path, options(bits=2), of)
    take_kernels(monkeypatch)
    module = small()[0].to(model)
    with Pool(bank, module) as pool, Bank.open(bank) as opened:
        for task in ("sun", "cars", "sun"):
            wanted = opened.retrieve(task)
            with pool.use(task):
                for name, found in module.state_dict().items():
                    assert torch.equal(found, wanted[name].to(model)), name


# Not in bfloat16: the interpreter cuts where a device rounds.
@pytest.mark.parametrize(
    ("transform", "bits", "dtype"),
    [
        ("two-sided", 16, torch.float32),
        ("two-sided", 2, torch.float16),
        ("hankel", 3, torch.float32),
        ("rsf", 8, torch.float16),
        ("srsf", 1, torch.float32),
        ("ta", 4, torch.float16),
    ],
    ids=str,
)
def test_the_kernel_writes_the_same_bits(
    tmp_path: Path,
    transform: str,
    bits: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from randes_cli.live.kernels import launch as kernels

    bank = bank_of(small, tmp_path, options(transform, bits=bits), dtype)
    seen: list[int] = []
    before = kernels.swap

    def counted(*given: Any, **more: Any) -> None:
        seen.append(more["bits"])
        before(*given, **more)

    take_kernels(monkeypatch)
    monkeypatch.setattr(kernels, "swap", counted)
    assert_swaps(bank, ("sun",), ways=(False,))
    assert (bits if bits < 8 else 0) in seen


def test_values_beyond_a_dtypes_range_become_its_largest(tmp_path: Path) -> None:
    def large() -> Made:
        model, inputs = llama()
        with torch.no_grad():
            model.lm_head.weight.mul_(65000 / model.lm_head.weight.abs().max())  # type: ignore[operator, union-attr]
        return model, inputs

    model = assert_swaps(bank_of(large, tmp_path, options(bits=2), torch.float16))
    assert model.lm_head.weight.abs().max() == 65504


def test_exact_tensors_and_grown_vocabularies(tmp_path: Path) -> None:
    bank = heads(tmp_path)
    model = randes_cli.transformers.from_bank(bank, "dtd")
    with Pool(bank, model, resident=True) as pool, pool.use("dtd"):
        assert_same(model, randes_cli.transformers.from_bank(bank, "dtd"))


@pytest.mark.parametrize("targets", ["^no such$", "mlp"])
def test_tensors_that_are_exact_for_one_task_and_the_bases_for_another(
    tmp_path: Path, targets: str
) -> None:
    bank_of(llama, tmp_path)
    base = load_file(tmp_path / "base" / "model.safetensors")
    for number, task in enumerate(("cars", "sun")):
        path = tmp_path / task / "model.safetensors"
        tensors = load_file(path)
        for name in sorted(tensors)[number::2]:
            tensors[name] = base[name].clone()
        save_file(tensors, path, {"format": "pt"})
    transform = Transform.from_preset("two-sided")
    own = Transform(transform.shuffle, transform.signs, targets=targets, rest=Rest.own)
    assert_swaps(pack_folders(tmp_path, PackOptions(transform=own)))


def test_a_swap_reads_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(llama, tmp_path)
    model = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model, resident=True) as pool:
        with pool.use("sun"):
            pass

        def read(self: Retrieval, name: str) -> None:
            raise AssertionError(name)

        monkeypatch.setattr(Retrieval, "read", read)
        monkeypatch.setattr(Retrieval, "write", read)
        with pool.use("cars"):
            pass


def test_damage_is_found_where_a_bank_is_read_to_stay(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    with Bank.open(bank) as opened:
        task, key = opened.retrieval("sun"), "model.layers.0.mlp.up_proj.weight"
        start = opened.file.where(task.sum_key(key))
    assert start is not None
    data = bytearray(bank.read_bytes())
    data[start[1] + 5] ^= 1
    bank.write_bytes(data)
    with (
        Pool(bank, randes_cli.transformers.from_bank(bank), resident=True) as pool,
        pytest.raises(BankDamaged, match="up_proj"),
        pool.use("sun"),
    ):
        pass
