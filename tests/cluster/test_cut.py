"""`pack --bits` on a cluster: sums wait in the workers, and no live bank is written in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import pack, verify
from randes_cli.specs import PackOptions, TaskInput
from tests.cluster.conftest import RAY
from tests.cluster.deaths import killing
from tests.life.models import ONE
from tests.shards.conftest import everything


def hard(folder: Path) -> list[TaskInput]:
    """A step that proves too fine, and a change that no sample sees; vectors stay sums."""
    random = np.random.default_rng(3)
    base = {f"h.{n}.w": random.standard_normal((1200, 1024), np.float32) for n in range(3)}
    base |= {"late.w": random.standard_normal((1200, 1000), np.float32)}
    base |= {"norm": random.standard_normal(64, np.float32)}
    ids = np.arange(7)
    save_file({**base, "ids": ids}, folder / "base.safetensors")
    for name in ("a", "b"):
        moved = {
            key: value + np.float32(1e-5) * random.standard_normal(value.shape, np.float32)
            for key, value in base.items()
            if key != "late.w"
        }
        moved["h.1.w"][700, 3] += 900.0 * (name == "b")
        late = base["late.w"].copy()
        late[613, 77] += name == "a"
        save_file({**base, **moved, "late.w": late, "ids": ids}, folder / f"{name}.safetensors")
    return [TaskInput(name, str(folder / f"{name}.safetensors")) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("size", "groups"), [(10**9, 1), (600_000, 2), (None, 1)], ids=["large", "small", "one file"]
)
def test_a_bank_is_cut_by_workers_that_pack_it(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, groups: int
) -> None:
    """Scales lie in other shards than some of their codes; a worker dies at every kind of work."""
    monkeypatch.setattr("randes_cli.cluster.Cluster.share", lambda *_: 2**20)
    inputs, told = hard(tmp_path), set[str]()
    died = killing(monkeypatch, tmp_path / "marks") if groups == 2 else None
    chosen = PackOptions(bits=2, groups=groups, max_shard_size=size)

    def progress(phase: str, done: int, total: int) -> None:
        told.add(phase.partition(" on ")[0])

    base = tmp_path / "base.safetensors"
    for run, name in ((ONE, "one.randes"), (RAY, "many.randes")):
        pack(base, inputs, tmp_path / name, chosen, run, progress=progress)
    assert everything(tmp_path / "many.randes") == everything(tmp_path / "one.randes")
    assert {"looking through", "coarser steps", "joining"} <= told
    assert not {"measuring", "sealing"} & told
    assert died is None or died() >= {"looking through", "packing", "coarser steps", "joining"}
    assert verify(tmp_path / "many.randes", run=ONE).unnamed == ()
    assert not list(tmp_path.glob(".*"))
