"""`pack` with fewer than 8 bits writes the bytes of a live bank that is sealed, without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli import PackOptions, RunOptions, Transform, pack, seal
from randes_cli.build import build
from randes_cli.build.seal import direct
from randes_cli.files import spool
from randes_cli.reports import PackReport, SealReport
from randes_cli.specs import BaseStorage
from tests.checkpoints import PRESET_NAMES, State, perturbed, random_state, save, save_sharded

SHAPES = {
    "embed.weight": [301, 64],
    "layers.0.weight": [64, 96],
    "layers.1.weight": [64, 96],
    "layers.2.weight": [64, 96],
    "conv.weight": [32, 16, 3, 3],
    "norm.weight": [64],
    "thin.weight": [700, 2],
}


def files(bank: Path) -> dict[str, bytes]:
    """The bytes of a bank, shards and all."""
    folder = bank.with_name(f"{bank.name}.d")
    shards = sorted(folder.iterdir()) if folder.is_dir() else []
    return {"": bank.read_bytes(), **{path.name: path.read_bytes() for path in shards}}


def both(
    folder: Path,
    source: Path | None,
    tasks: Sequence[str],
    bits: int,
    run: RunOptions | None = None,
    most: int | None = None,
    **options: Any,
) -> tuple[PackReport, SealReport]:
    """Pack at once, and live and then sealed; the bytes are compared, and reports returned."""
    live, sealed, made = (folder / f"{name}.randes" for name in ("live", "sealed", "made"))
    pack(source, tasks, live, PackOptions(bits=16, **options), RunOptions(threads=1))
    after = seal(live, sealed, bits, max_shard_size=most)
    chosen = PackOptions(bits=bits, max_shard_size=most, **options)
    report = pack(source, tasks, made, chosen, run)
    assert files(made) == files(sealed)
    assert report.bank_bytes == sum(map(len, files(made).values()))
    found = [task.predicted_cosine for task in report.tasks]
    assert found == [task.predicted_cosine for task in after.after]
    left = {path.name for path in folder.iterdir()} - {"live.randes", "sealed.randes"}
    assert not [name for name in left if "tmp" in name], left
    return report, after


def model(folder: Path, dtype: torch.dtype = torch.bfloat16, count: int = 3) -> list[State]:
    """A base and its fine-tunes, one of which left a layer as it was."""
    base = random_state(SHAPES, dtype=dtype)
    states = [base, *(perturbed(base, seed=seed) for seed in range(count))]
    states[1]["layers.1.weight"] = base["layers.1.weight"].clone()
    return states


def saved(folder: Path, states: Sequence[State]) -> tuple[Path, list[str]]:
    """The base's file, and tasks by name."""
    paths = [save(state, folder / f"m{n}.safetensors") for n, state in enumerate(states)]
    return paths[0], [f"t{n}={path}" for n, path in enumerate(paths[1:])]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_bytes_are_those_of_a_sealed_live_bank(preset: str, tmp_path: Path) -> None:
    bits = 1 + PRESET_NAMES.index(preset) % 4
    transform = Transform.from_preset(preset)
    both(tmp_path, *saved(tmp_path, model(tmp_path)), bits, transform=transform)


@pytest.mark.parametrize(
    "run",
    [
        RunOptions(threads=3),
        RunOptions(threads=1, strip_elements=100),
        RunOptions(max_memory=2**20),
        RunOptions(device="cpu-torch"),
    ],
)
def test_threads_strips_and_device_do_not_matter(run: RunOptions, tmp_path: Path) -> None:
    states = model(tmp_path, torch.float32)
    both(tmp_path, *saved(tmp_path, states), 3, run, groups=2)


@pytest.mark.parametrize("room", [0, 2 * 64 * 96 + 700, 2**25])
@pytest.mark.parametrize("transform", ["hankel", "srsf"])
def test_where_sums_wait_does_not_matter(
    room: int, transform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WAITING", room)
    shapes = {**SHAPES, "layers.3.weight": [64, 96], "wide.weight": [70, 16_000]}
    base = random_state(shapes)
    states = [base, *(perturbed(base, seed=seed) for seed in range(3))]
    run, shuffled = RunOptions(threads=2), Transform.from_preset(transform)
    both(tmp_path, *saved(tmp_path, states), 2, run, groups=2, transform=shuffled)


def test_the_plan_knows_the_memory_that_sums_wait_in(tmp_path: Path) -> None:
    given = saved(tmp_path, model(tmp_path))
    buffers = {}
    for bits in (16, 2):
        out, run = tmp_path / "bank.randes", RunOptions(threads=1)
        buffers[bits] = pack(*given, out, PackOptions(bits=bits), run, force=True).buffer_bytes
    sums = 2 * (301 * 64 + 3 * 64 * 96 + 32 * 144 + 64 + 1400)
    assert sums <= buffers[2] - buffers[16] <= sums + 64 * len(SHAPES)


@pytest.mark.parametrize("share", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_groups_and_shares_in_other_dtypes(dtype: torch.dtype, share: int, tmp_path: Path) -> None:
    states = model(tmp_path, dtype, 4)
    both(tmp_path, *saved(tmp_path, states), 2, groups=2, share=share)


@pytest.mark.parametrize("most", [20_000, 10**6])
def test_shards_are_cut_alike(most: int, tmp_path: Path) -> None:
    both(tmp_path, *saved(tmp_path, model(tmp_path)), 4, most=most, groups=2)


def test_a_base_outside_and_sharded_inputs(tmp_path: Path) -> None:
    states = model(tmp_path)
    folders = [save_sharded(state, tmp_path / f"m{n}") for n, state in enumerate(states)]
    tasks = [f"t{n}={path}" for n, path in enumerate(folders[1:])]
    both(tmp_path, folders[0], tasks, 2, base_storage=BaseStorage.reference)


def test_adapters_that_stay_adapters(tmp_path: Path) -> None:
    factors = {"A": [32, 128], "B": [128, 32]}
    shapes = {f"base_model.model.l.q.lora_{one}.weight": shape for one, shape in factors.items()}
    config = {"peft_type": "LORA", "r": 32, "lora_alpha": 32, "target_modules": ["q"]}
    tasks = []
    for seed in range(3):
        folder = tmp_path / f"a{seed}"
        save(random_state(shapes, seed=seed), folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config))
        tasks.append(f"t{seed}={folder}")
    both(tmp_path, None, tasks, 4)


def test_changes_that_no_sample_shows_and_those_beyond_their_step(tmp_path: Path) -> None:
    shapes = {**SHAPES, "late.weight": [900, 300], "long.bias": [150_000], "far.weight": [900, 300]}
    base = random_state(shapes, dtype=torch.float32)
    states = [base, *({n: v.clone() for n, v in base.items()} for _ in range(2))]
    for state in states[1:]:
        state["late.weight"][30, 7] += 1
        state["long.bias"][120_000] += 1
        state["far.weight"] += 2**-20
        state["far.weight"][30, 7] += 64  # a row that no sample reads
    both(tmp_path, *saved(tmp_path, states), 2, groups=2)


def test_exact_tensors_ties_resized_ones_and_zeros_of_another_sign(tmp_path: Path) -> None:
    states = model(tmp_path)
    for n, state in enumerate(states):
        state["ids"] = torch.arange(9) + (n == 2)
        state["same"] = torch.arange(7)
        state["zero.weight"] = torch.zeros(64, 64) * (-1 if n == 1 else 1)
        state["head.weight"] = random_state({"h": [5 + n, 64]}, seed=n)["h"]
    states[2]["embed.weight"] = torch.cat([states[2]["embed.weight"], torch.ones(3, 64).bfloat16()])
    states[3]["embed.weight"] = states[3]["embed.weight"][:200].clone()
    both(tmp_path, *saved(tmp_path, states), 2)


def test_tasks_that_change_nothing_leave_nothing_to_cut(tmp_path: Path) -> None:
    base = random_state(SHAPES)
    both(tmp_path, *saved(tmp_path, [base, base, base]), 2)


def test_spool_files_are_used_again_and_large_ones_give_their_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sizes = list[spool.SpoolFile](), list[int]()

    class Counted(spool.SpoolFile):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            made.append(self)

    give = spool.Spool.give

    def counted(self: spool.Spool, file: spool.SpoolFile, size: int) -> None:
        give(self, file, size)
        sizes.append(file._file.seek(0, 2))

    monkeypatch.setattr(spool, "SpoolFile", Counted)
    monkeypatch.setattr(spool.Spool, "give", counted)
    monkeypatch.setattr(spool, "_KEPT", 2 * 64 * 96)
    monkeypatch.setattr(build, "WAITING", 0)
    both(tmp_path, *saved(tmp_path, model(tmp_path)), 2, RunOptions(threads=2))
    assert 1 <= len(made) <= 3
    assert max(sizes) <= 2 * 64 * 96


def test_room_is_asked_for_sums_that_wait_and_not_for_a_live_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()
    monkeypatch.setattr(direct, "check_space", lambda _, size: asked.append(size))
    report, _ = both(tmp_path, *saved(tmp_path, model(tmp_path)), 2, RunOptions(threads=1))
    assert len(asked) == 1
    largest = 2 * (301 * 64 + 64 * 96)  # the sums of a unit for the thread, and of one more
    assert report.bank_bytes + largest <= asked[0] < report.bank_bytes + largest + 4096
