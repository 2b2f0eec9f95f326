"""`Bank.load_into` writes a task into a module in place, and writes what `retrieve` returns."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import nn

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.errors import BankDamaged, MismatchError, MissingError
from tests.checkpoints import PRESET_NAMES, State, perturbed, random_state, save


class Block(nn.Module):
    """A layer with a weight, a bias, and a counter that is no floating-point number."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, dtype=dtype)
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))


class Model(nn.Module):
    """An embedding, two layers, and a head that may be tied to the embedding."""

    def __init__(self, *, dtype: torch.dtype = torch.float32, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16, dtype=dtype)
        self.layers = nn.ModuleList([Block(16, dtype) for _ in range(2)])
        self.head = nn.Linear(16, 40, bias=False, dtype=dtype)
        if tied:
            self.head.weight = self.embed.weight


def model_state(seed: int = 0, dtype: torch.dtype = torch.float32) -> State:
    shapes = {n: t.shape for n, t in Model().state_dict().items() if t.is_floating_point()}
    state = random_state(shapes, seed=seed, dtype=dtype)
    counters = {f"layers.{n}.steps": torch.arange(3) + seed for n in range(2)}
    return state | counters


def make_bank(folder: Path, base: State, tasks: dict[str, State], transform: str = "srsf") -> Path:
    inputs = [
        TaskInput(name, str(save(state, folder / f"{name}.st"))) for name, state in tasks.items()
    ]
    options = PackOptions(transform=Transform.from_preset(transform))
    bank = folder / "bank.randes"
    pack(str(save(base, folder / "base.st")), inputs, bank, options, force=True)
    return bank


def two_tasks(folder: Path, dtype: torch.dtype = torch.float32, transform: str = "srsf") -> Path:
    base = model_state(dtype=dtype)
    tasks = {name: perturbed(base, seed=seed) for seed, name in enumerate(("one", "two"))}
    tasks["two"]["layers.0.steps"] = torch.tensor([5, 6, 7])
    return make_bank(folder, base, tasks, transform)


def assert_holds(module: nn.Module, state: State) -> None:
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("transform", PRESET_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_loaded_module_holds_what_retrieve_returns(
    tmp_path: Path, transform: str, dtype: torch.dtype
) -> None:
    with Bank.open(two_tasks(tmp_path, dtype, transform)) as bank:
        module = Model(dtype=dtype)
        report = bank.load_into(module, "two", coefficient=0.7)
        assert_holds(module, bank.retrieve("two", coefficient=0.7))
        assert report.tensors == len(module.state_dict())
        assert report.bytes == sum(t.nbytes for t in module.state_dict().values())


def test_swapping_there_and_back_restores_every_bit(tmp_path: Path) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        bank.load_into(module, "one")
        first = {name: value.clone() for name, value in module.state_dict().items()}
        bank.load_into(module, "two")
        assert not torch.equal(module.embed.weight, first["embed.weight"])
        bank.load_into(module, "one")
        assert_holds(module, first)


def test_the_modules_own_memory_is_written(tmp_path: Path) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        before = {name: value.data_ptr() for name, value in module.state_dict().items()}
        trained = dict(module.named_parameters())
        bank.load_into(module, "one")
        assert {name: value.data_ptr() for name, value in module.state_dict().items()} == before
        assert all(trained[n] is p and p.requires_grad for n, p in module.named_parameters())


@pytest.mark.parametrize("device", ["cpu", "cpu-torch"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_strips_and_devices_give_the_same_module(
    tmp_path: Path, device: str, threads: int
) -> None:
    path = two_tasks(tmp_path)
    with Bank.open(path) as bank:
        expected = bank.retrieve("two")
    run = RunOptions(threads=threads, strip_elements=50, device=device)
    with Bank.open(path, run=run) as bank:
        module = Model()
        bank.load_into(module, "two")
        assert_holds(module, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_are_rounded_once_to_the_modules_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model(dtype=dtype)
        bank.load_into(module, "one")
        state = bank.retrieve("one")
        assert_holds(
            module, {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
        )


@pytest.mark.parametrize(("held", "lost"), [*permutations(("head.weight", "embed.weight"))])
def test_a_tied_tensor_that_was_saved_once_loads_into_a_tied_module(
    tmp_path: Path, held: str, lost: str
) -> None:
    base = model_state()
    del base[lost]
    path = make_bank(tmp_path, base, {"one": perturbed(base, seed=1)})
    with Bank.open(path) as bank:
        module = Model(tied=True)
        report = bank.load_into(module, "one")
        assert module.head.weight is module.embed.weight
        assert torch.equal(module.head.weight, bank.retrieve("one")[held])
        assert report.missing == ()


def test_parameters_that_the_task_lacks_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    base = model_state()
    del base["head.weight"]
    path = make_bank(tmp_path, base, {"one": perturbed(base, seed=1)})
    with Bank.open(path) as bank:
        module = Model()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(MissingError, match=r"'head\.weight' \(strict=False leaves"):
            bank.load_into(module, "one")
        assert_holds(module, before)
        report = bank.load_into(module, "one", strict=False)
        assert report.missing == ("head.weight",)
        assert_holds(module, bank.retrieve("one") | {"head.weight": before["head.weight"]})


def test_tensors_that_the_module_lacks_are_refused_or_reported(tmp_path: Path) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        del module.head
        with pytest.raises(MismatchError, match=r"no parameter for 'head\.weight' of task one"):
            bank.load_into(module, "one")
        assert bank.load_into(module, "one", strict=False).unexpected == ("head.weight",)
        state = bank.retrieve("one")
        assert torch.equal(module.embed.weight, state["embed.weight"])


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        module.embed = nn.Embedding(41, 16)
        with pytest.raises(MismatchError, match=r"'embed\.weight' is \[40, 16\], .* \[41, 16\]"):
            bank.load_into(module, "one", strict=False)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.zeros(40, 16, device="meta"), "is on the meta device"),
        (torch.zeros(40, 1).expand(40, 16), "is expanded"),
        (torch.zeros(55).as_strided((40, 16), (1, 1)), "is expanded"),
        (torch.zeros(40, 16).to_sparse(), "only dense ones"),
    ],
)
def test_a_parameter_without_memory_of_its_own_is_refused(
    tmp_path: Path, weight: torch.Tensor, said: str
) -> None:
    module = Model()
    module.head.weight = nn.Parameter(weight)
    path = two_tasks(tmp_path)
    with Bank.open(path) as bank, pytest.raises(MismatchError, match=said):
        bank.load_into(module, "one")


def test_a_parameter_that_is_no_run_of_memory_is_written_too(tmp_path: Path) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        module.head.weight = nn.Parameter(torch.zeros(16, 40).t())
        assert not module.head.weight.is_contiguous()
        bank.load_into(module, "one")
        assert_holds(module, bank.retrieve("one"))


def test_rows_that_a_task_added_are_loaded(tmp_path: Path) -> None:
    base = model_state()
    task = perturbed(base, seed=1)
    task["embed.weight"] = torch.cat([task["embed.weight"], torch.ones(3, 16)])
    with Bank.open(make_bank(tmp_path, base, {"one": task})) as bank:
        module = Model()
        module.embed = nn.Embedding(43, 16)
        bank.load_into(module, "one")
        assert torch.equal(module.embed.weight[40:], torch.ones(3, 16))
        assert_holds(module, bank.retrieve("one"))


def test_values_beyond_the_modules_dtype_are_an_error(tmp_path: Path) -> None:
    base = model_state()
    base["embed.weight"][3, 4] = 1e6
    path = make_bank(tmp_path, base, {"one": perturbed(base, seed=1)})
    beyond = pytest.raises(MismatchError, match="1 values are beyond the range")
    with Bank.open(path) as bank, beyond:
        bank.load_into(Model(dtype=torch.float16), "one")


@pytest.mark.parametrize("key", ["base/embed.weight", "sum/0/embed.weight"])
def test_damage_is_reported_when_bytes_are_first_used(tmp_path: Path, key: str) -> None:
    path = two_tasks(tmp_path)
    with Bank.open(path) as bank:
        start = bank._file.header.starts[key]
    data = bytearray(path.read_bytes())
    data[start] ^= 1
    path.write_bytes(data)
    with Bank.open(path) as bank:
        for _ in range(2):
            with pytest.raises(BankDamaged, match=f"tensor '{key}' is damaged"):
                bank.load_into(Model(), "one")


def test_stored_bytes_are_digested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bank.open(two_tasks(tmp_path)) as bank:
        module = Model()
        bank.load_into(module, "one")
        bank.load_into(module, "two")

        def digest() -> None:
            raise AssertionError("digested again")

        monkeypatch.setattr("randes_cli.read.retrieve.hasher", digest)
        bank.load_into(module, "one")
        bank.load_into(module, "two")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.uint8])
def test_whole_numbers_are_loaded_into_their_own_dtype_alone(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """200 in an int8 would be −56."""
    base = model_state()
    base["layers.0.steps"] = torch.tensor([200, 1, 0])
    bank = make_bank(tmp_path, base, {"one": perturbed(base, seed=1)})
    module = Model()
    module.get_submodule("layers.0").register_buffer("steps", torch.zeros(3, dtype=dtype))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with Bank.open(bank) as opened:
        with pytest.raises(MismatchError, match=r"layers\.0\.steps' is I64, the module's is"):
            opened.load_into(module, "one")
        assert_holds(module, before)
        opened.load_into(Model(), "one")


def test_a_bank_closed_again_closes_nothing_of_somebody_else(tmp_path: Path) -> None:
    bank = two_tasks(tmp_path)
    with Bank.open(bank) as opened:
        opened.close()
        with (tmp_path / "base.st").open("rb") as other:  # gets the number that is free now
            opened.close()
            assert other.read(1)
        with (tmp_path / "base.st").open("rb") as another:
            pass
    with Bank.open(bank) as first:
        first.close()
        with Bank.open(bank) as second:
            first.close()
            assert second.retrieve("one")
            assert another.closed
