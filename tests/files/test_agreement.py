"""Whether a bank's tensors are those that its manifest says: none may lack, or be another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import PackOptions, TaskInput, pack
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.checks import check_agreement
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import CHECKS, CUTS, MANIFEST, ROUNDED, TAILS, parse_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.specs import BaseStorage, Table, TensorInfo, Transform

OPTIONS = {
    "groups": PackOptions(groups=2),
    "shuffled": PackOptions(Transform.from_preset("srsf"), base_storage=BaseStorage.reference),
    "shares": PackOptions(share=2),
    "sealed": PackOptions(bits=2, share=2),
}
#: Statistics that banks of before have not.
LATER = (ROUNDED, TAILS, CUTS)


def family(folder: Path) -> list[TaskInput]:
    """A base, a task with more words and a head, and one that changed a single tensor."""
    random = np.random.default_rng(3)
    base: dict[str, Any] = {
        f"h.{n}.w": random.standard_normal((40, 30), np.float32) for n in range(2)
    }
    base |= {"wte.weight": random.standard_normal((50, 30), np.float32), "n": np.arange(3)}
    more = {key: value + np.float32(0.1) for key, value in base.items() if key != "n"}
    more["wte.weight"] = np.concatenate([more["wte.weight"], np.ones((2, 30), np.float32)])
    states = {"base": base, "a": {**more, "head": np.ones((2, 3)), "n": base["n"]}}
    states["b"] = {**base, "h.1.w": base["h.1.w"] * np.float32(1.01)}
    for name, state in states.items():
        (folder / name).mkdir()
        save_file(state, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(f'{{"name": "{name}"}}')
    return [TaskInput(name, str(folder / name)) for name in "ab"]


def is_idle(key: str, manifest: Manifest) -> bool:
    """Whether no task has anything in a superposition."""
    kind, owner, name = parse_key(key)
    here = [task for task in manifest.tasks if kind == "sum" and owner == str(task.group)]
    return bool(here) and all(name in task.unchanged for task in here)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_tensor_is_there_as_the_manifest_says(options: str, tmp_path: Path) -> None:
    path = tmp_path / "bank.randes"
    pack(str(tmp_path / "base"), family(tmp_path), path, OPTIONS[options])
    with BankFile(path) as bank:
        manifest, tensors = bank.manifest, dict(bank.header.tensors)
    there = [key for key in tensors if parse_key(key).kind not in (MANIFEST, CHECKS, "align")]
    assert {parse_key(key).kind for key in there} >= {"sum", "own", "files", "stats"}
    for key in there:
        tensor, others = tensors[key], {k: t for k, t in tensors.items() if k != key}
        dtype = "F32" if tensor.dtype == "F64" else "F64"
        first, *rest = tensor.shape
        wrong = [TensorInfo(key, dtype, tensor.shape)]
        if not key.startswith("files/"):
            wrong.append(TensorInfo(key, tensor.dtype, (first + 1, *rest)))
        for one in [others, *({**others, key: other} for other in wrong)]:
            if one is others and (key.startswith(LATER) or is_idle(key, manifest)):
                check_agreement(manifest, Table(one))
                continue
            with pytest.raises(BankDamaged):
                check_agreement(manifest, Table(one))
    like = next(key for key in there if parse_key(key).kind == "sum").partition("/")[2][2:]
    for extra in (f"sum/7/{like}", f"sum/00/{like}", f"sum/²/{like}", f"sum/{like}", "sum/0/ghost"):
        with pytest.raises(BankDamaged, match=r"of no group of this bank|does not match the base"):
            check_agreement(manifest, Table({**tensors, extra: TensorInfo(extra, "I16", (40, 30))}))
    bare = {key: t for key, t in tensors.items() if parse_key(key).kind not in ("sum", "scale")}
    with pytest.raises(BankDamaged, match="is missing"):
        check_agreement(manifest, Table(bare))
