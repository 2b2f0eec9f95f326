"""What a job takes: memory that the plan computes, and progress that ends at its total."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.build.jobs import copies
from randes_cli.files.bank.file import BankFile
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.reports import PackReport
from tests.checkpoints import Packer, State, layered_shapes, perturbed, random_state

#: Bytes beside the strips' buffers: samples of 2^16 elements, headers, reports, interpreter.
BESIDE = 6 * 2**20


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` held at once, NumPy's arrays included."""
    work()  # what is imported or cached once does not count
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def inputs(folder: Path, rows: int) -> tuple[str, list[TaskInput]]:
    """A base and two tasks with a matrix of rows × 1024, in files."""
    packer = Packer(folder)
    base = random_state({"h.0.weight": [rows, 1024], "h.1.weight": [rows, 1024]})
    tasks = packer.inputs({f"t{n}": perturbed(base, seed=n) for n in range(2)})
    return packer.inputs({"base": base})[0].source, tasks


def pack_inputs(
    folder: Path,
    given: tuple[str, list[TaskInput]],
    run: RunOptions,
    transform: str,
    bits: int = 16,
) -> PackReport:
    base, tasks = given
    options = PackOptions(transform=Transform.from_preset(transform), bits=bits)
    return pack(base, tasks, folder / "bank.randes", options, run, force=True)


@pytest.mark.parametrize("transform", ["two-sided", "hankel", "srsf"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("most", [None, 2**21])
def test_packing_holds_no_more_than_the_plans_buffers(
    tmp_path: Path, transform: str, threads: int, most: int | None
) -> None:
    given = inputs(tmp_path, 512)
    run = RunOptions(threads=threads, max_memory=most)
    report = pack_inputs(tmp_path, given, run, transform)
    held = peak(lambda: pack_inputs(tmp_path, given, run, transform))
    assert held <= report.buffer_bytes + BESIDE
    if most is not None:
        assert report.buffer_bytes <= most


@pytest.mark.parametrize("most", [None, 2**21, 2**24])
def test_sums_that_wait_to_be_cut_are_among_them(tmp_path: Path, most: int | None) -> None:
    given = inputs(tmp_path, 2048)
    run = RunOptions(threads=2, max_memory=most)
    report = pack_inputs(tmp_path, given, run, "hankel", 2)
    held = peak(lambda: pack_inputs(tmp_path, given, run, "hankel", 2))
    assert held <= report.buffer_bytes + BESIDE
    if most is not None:
        assert report.buffer_bytes <= most


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    run = RunOptions(threads=1, max_memory=2**21)  # of two, one may be done before the other starts
    held = []
    for rows in (256, 1024):
        folder = tmp_path / str(rows)
        folder.mkdir()
        given = inputs(folder, rows)
        held.append(peak(lambda: pack_inputs(folder, given, run, "hankel")))  # noqa: B023
    assert held[1] <= held[0] + 2**18


def resized_task(base: State) -> State:
    task = perturbed(base, seed=1)
    task["embed.weight"] = torch.cat([task["embed.weight"], torch.ones(2, 6)])
    return task | {"head.weight": torch.ones(3, 6)}


def test_progress_ends_at_its_total_in_every_phase(tmp_path: Path) -> None:
    base = random_state(layered_shapes()) | {"count": torch.arange(4)}
    sparse = {name: value.clone() for name, value in base.items()}
    sparse["layers.1.mlp.weight"][0, 0] += 1
    tasks = {"full": perturbed(base, seed=0), "grown": resized_task(base), "sparse": sparse}
    packer = Packer(tmp_path)
    source = packer.inputs({"base": base})[0].source
    counted: dict[tuple[str, int], int] = defaultdict(int)

    def progress(phase: str, done: int, total: int) -> None:
        counted[phase, total] += done

    run = RunOptions(threads=2, strip_elements=7)
    pack(source, packer.inputs(tasks), tmp_path / "bank.randes", run=run, progress=progress)
    unpack(
        tmp_path / "bank.randes",
        ["grown"],
        tmp_path / "out.safetensors",
        UnpackOptions(),
        run,
        progress=progress,
    )
    phases = {phase for phase, _ in counted}
    assert {"packing", "unpacking grown"} <= phases
    assert all(count == total for (_, total), count in counted.items())


def test_one_tensor_at_a_time_is_held_while_iterating(tmp_path: Path) -> None:
    run = RunOptions(threads=1, max_memory=2**20)
    pack_inputs(tmp_path, inputs(tmp_path, 512), run, "hankel")
    with Bank.open(tmp_path / "bank.randes", run=run) as bank:

        def go() -> None:
            for _, tensor in bank.iter_tensors("t0"):
                del tensor

        assert peak(go) <= 512 * 1024 * 4 + 2**20 + 2**20


def test_copies_of_an_old_bank_take_neighbours_together_up_to_a_piece(
    packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = random_state({f"h.{n}.weight": [32, 32] for n in range(10)})
    bank = packer.pack(base, {"t": perturbed(base, seed=1)})
    monkeypatch.setattr(copies, "_PIECE", 3 * 4096 + 1)
    with BankFile(bank) as old:
        keys = [key for key in old.header.tensors if key.startswith("base/")]
        found = copies._copies(old, keys, old.store.address)
    assert [one.nbytes for one in found] == [3 * 4096] * 3 + [4096]
    assert [chunk.key for one in found for chunk in one.chunks] == keys
