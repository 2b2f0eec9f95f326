"""The size of a sealing is told to the byte, and of very many tensors about so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import PackOptions, inspect, pack, seal
from randes_cli.stats.alternatives import sealing


def test_a_sealing_is_laid_out_where_tensors_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    base = {f"h.{n}.w": random.standard_normal((128, 96), np.float32) for n in range(3)}
    save_file(base, tmp_path / "base.safetensors")
    for task in "abcd":
        changed = {n: v + 0.01 * random.standard_normal(v.shape) for n, v in base.items()}
        path = tmp_path / f"{task}.safetensors"
        save_file({n: v.astype(np.float32) for n, v in changed.items()}, path)
    bank = tmp_path / "bank.randes"
    tasks = [str(tmp_path / f"{task}.safetensors") for task in "abcd"]
    pack(tmp_path / "base.safetensors", tasks, bank, PackOptions(bits=16))

    found = sealing(inspect(bank).report.alternatives)
    assert found is not None and found.best.exact
    beside = f"--bits {found.best.bits} -o {{}}-{found.best.bits}bit.randes"
    for there, here in (
        ("sub/x.randes", "sub/x"),
        ("s3://lab/sub/x.randes", "s3://lab/sub/x"),
        ("https://lab.org/sub/x.randes", "x"),
        ("lab/tasks:x.randes", "x"),
        ("lab/tasks@v1:sub/x.randes", "x"),
    ):
        assert found.command(there) == f"randes seal {there} {beside.format(here)}"
    made = seal(bank, tmp_path / "sealed.randes", found.best.bits)
    assert made.bytes_after == found.best.bank_bytes

    monkeypatch.setattr("randes_cli.build.seal.seal._MOST_TENSORS", 2)
    about = sealing(inspect(bank).report.alternatives)
    assert about is not None and not about.best.exact
    assert about.best.bank_bytes == pytest.approx(found.best.bank_bytes, rel=0.02)
