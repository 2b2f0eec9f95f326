"""How wide a live superposition is where nobody says, and how many more tasks it has room for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from randes_cli import Bank, PackOptions, PackReport, RunOptions, TaskInput, pack
from randes_cli.build.edit import add, remove
from randes_cli.build.seal.seal import seal
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import Alternative
from randes_cli.specs import BaseStorage
from tests.checkpoints import State, perturbed, random_state, save

ONE = RunOptions(threads=1)
SHAPES = {"h.0.w": [48, 64], "h.1.w": [48, 64], "norm": [64]}


def _base(dtype: torch.dtype) -> State:
    return random_state(SHAPES, dtype=dtype)


def _family(folder: Path, base: State, count: int) -> list[TaskInput]:
    """A base and so many fine-tunes in files; the fine-tunes as inputs."""
    save(base, folder / "base.safetensors")
    return [
        TaskInput(f"t{n}", save(perturbed(base, seed=n, scale=0.05), folder / f"t{n}.safetensors"))
        for n in range(count)
    ]


def _pack(folder: Path, tasks: list[TaskInput], options: PackOptions | None = None) -> PackReport:
    bank = folder / "bank.randes"
    return pack(folder / "base.safetensors", tasks, bank, options, ONE, force=True)


@pytest.mark.parametrize(
    ("dtype", "tasks", "groups", "bits"),
    [
        (torch.bfloat16, 2, 1, 8),
        (torch.float16, 2, 1, 8),
        (torch.float8_e4m3fn, 2, 1, 8),
        (torch.float32, 2, 1, 16),
        (torch.float64, 2, 1, 16),
        (torch.bfloat16, 1, 1, 16),
        (torch.bfloat16, 4, 2, 8),
        (torch.bfloat16, 3, 2, 16),
    ],
)
def test_the_default_is_8_bits_where_base_and_company_are_such(
    tmp_path: Path, dtype: torch.dtype, tasks: int, groups: int, bits: int
) -> None:
    inputs = _family(tmp_path, _base(dtype), tasks)
    told = _pack(tmp_path, inputs, PackOptions(groups=groups))
    made = (tmp_path / "bank.randes").read_bytes()
    assert told.bits == bits
    assert _pack(tmp_path, inputs, PackOptions(groups=groups, bits=bits)).bank_bytes == len(made)
    assert (tmp_path / "bank.randes").read_bytes() == made


def test_the_larger_part_of_the_elements_decides(tmp_path: Path) -> None:
    mixed = {**_base(torch.bfloat16), "wide": torch.ones(48, 60)}
    assert _pack(tmp_path, _family(tmp_path, mixed, 2)).bits == 8
    mixed["wide"] = torch.ones(48, 140)
    assert _pack(tmp_path, _family(tmp_path, mixed, 2)).bits == 16
    mixed["wide"] = torch.ones(48, 140, dtype=torch.int64)  # integers are never superposed
    assert _pack(tmp_path, _family(tmp_path, mixed, 2)).bits == 8


def test_a_base_that_lies_outside_decides_too(tmp_path: Path) -> None:
    inputs = _family(tmp_path, _base(torch.bfloat16), 2)
    assert _pack(tmp_path, inputs, PackOptions(base_storage=BaseStorage.reference)).bits == 8


def test_two_fine_tunes_of_a_16_bit_base_take_half_of_it_more(tmp_path: Path) -> None:
    base = random_state({"h.0.w": [512, 1024], "h.1.w": [512, 512]}, dtype=torch.bfloat16)
    told = _pack(tmp_path, _family(tmp_path, base, 2))
    assert 1.5 < told.bank_bytes / told.base_bytes < 1.52
    assert [one for one in told.alternatives if one.present and _whole(one, 8)]


def _whole(one: Alternative, bits: int) -> bool:
    return (one.groups, one.bits, one.share) == (1, bits, 1)


def test_room_is_what_the_capacity_leaves_in_live_groups(tmp_path: Path) -> None:
    inputs = _family(tmp_path, _base(torch.bfloat16), 5)
    bank = tmp_path / "bank.randes"
    assert _pack(tmp_path, inputs[:4], PackOptions(groups=2)).room == 2 * 16 - 4
    assert _pack(tmp_path, inputs[:2], PackOptions(capacity=3)).room == 1
    assert _pack(tmp_path, inputs[:2], PackOptions(bits=16)).room is None
    assert _pack(tmp_path, inputs[:2], PackOptions(bits=2)).room is None
    assert _pack(tmp_path, inputs[:2], PackOptions(capacity=3)).room == 1
    assert add(bank, inputs[2:], run=ONE).room == 0
    assert remove(bank, ["t4", "t3"], run=ONE).room == 0
    assert remove(bank, ["t2"], run=ONE, forget=True).room == 0  # its delta is still in the sum
    with BankFile(bank) as opened:
        assert describe(opened).room == 0
    seal(bank, tmp_path / "sealed.randes", 4, ONE)
    with BankFile(tmp_path / "sealed.randes") as opened:
        assert describe(opened).room is None


def test_a_bank_beyond_its_capacity_adds_and_removes_exactly_until_it_refuses(
    tmp_path: Path,
) -> None:
    inputs = _family(tmp_path, _base(torch.bfloat16), 150)
    bank = tmp_path / "bank.randes"
    _pack(tmp_path, inputs[:2])
    first, refused, more = bank.read_bytes(), None, inputs[2:]
    count = 0
    while refused is None:
        before, coming = bank.read_bytes(), more[count : count + 14]
        try:
            add(bank, coming, run=ONE)
            count += len(coming)
        except MismatchError as error:
            refused = error
    assert "would overflow its 8-bit superposition" in str(refused)
    assert "a larger --capacity" in str(refused)
    assert bank.read_bytes() == before
    assert count >= 14
    remove(bank, [task.name for task in more[:count]], run=ONE)
    with BankFile(bank) as opened:
        left = {k: opened.read_whole(k).tobytes() for k in opened.header.tensors if "sum/" in k}
    bank.write_bytes(first)
    with BankFile(bank) as opened:
        assert left == {k: opened.read_whole(k).tobytes() for k in left}


def test_a_longer_delta_than_8_bits_hold_is_refused_and_packed_anew_at_16(tmp_path: Path) -> None:
    base = _base(torch.bfloat16)
    inputs = _family(tmp_path, base, 2)
    _pack(tmp_path, inputs)
    far = perturbed(base, seed=9, scale=2.0)
    inputs.append(TaskInput("far", save(far, tmp_path / "far.safetensors")))
    with pytest.raises(MismatchError, match="--bits 16 or a larger --capacity"):
        add(tmp_path / "bank.randes", inputs[2:], run=ONE)
    _pack(tmp_path, inputs)
    with Bank.open(tmp_path / "bank.randes") as opened:
        assert opened.tasks == ("t0", "t1", "far")
