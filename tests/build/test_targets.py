"""What a bank records of its targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from randes_cli import PackOptions, TaskInput, Transform, pack
from randes_cli.files.bank.file import BankFile


def test_a_bank_records_the_names_that_a_pattern_matched(tmp_path: Path) -> None:
    names = ("a.attn.weight", "a.mlp.weight", "b.attn.weight")
    base = {name: np.ones((4, 4), np.float32) for name in names}
    save_file(base, tmp_path / "base.safetensors")
    save_file({n: v + 1 for n, v in base.items()}, tmp_path / "x.safetensors")
    task = TaskInput("x", str(tmp_path / "x.safetensors"))
    for targets, matched in (
        ("all", None),
        ("attn", {names[0], names[2]}),
        (r"^a\.", set(names[:2])),
    ):
        options = PackOptions(transform=Transform.from_preset("hankel", targets=targets))
        pack(str(tmp_path / "base.safetensors"), [task], tmp_path / "t.randes", options, force=True)
        with BankFile(tmp_path / "t.randes") as bank:
            transform = bank.manifest.transform
        assert transform.targets == targets
        assert transform.matched == matched
