"""What `add` says of the models that come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.build.test_adapter_banks import save_adapter, save_base
from tests.cli.conftest import Result

Run = Callable[..., Result]


def test_add_says_of_a_task_what_pack_says(tmp_path: Path, randes: Run) -> None:
    save_base(tmp_path)
    for seed, name in enumerate(["cars", "dtd"]):
        save_adapter(tmp_path, name, seed, modules_to_save=["lm_head"])
        (tmp_path / name / "code.py").write_text("pass")
    base, cars, dtd = (tmp_path / name for name in ("base", "cars", "dtd"))
    whole, bank = tmp_path / "whole.randes", tmp_path / "bank.randes"
    packed = randes("pack", base, cars, dtd, "-o", whole, "--json").json
    assert randes("pack", base, cars, "-o", bank).code == 0
    added = randes("add", bank, dtd, "--dry-run", "--json").json
    assert added["kept_exactly"] == {"dtd": packed["kept_exactly"]["dtd"]}
    for key in ("notes", "left_out", "side_files", "read_bytes"):
        assert added["after"][1][key] == packed["tasks"][1][key], key
    assert added["after"][0]["notes"] == []
    assert added["after"][1]["notes"] and "code.py" in json.dumps(added["after"][1]["left_out"])

    said = randes("add", bank, dtd).err
    alone = randes("pack", base, dtd, "-o", tmp_path / "alone.randes").err
    lines = [line for line in alone.splitlines() if line.startswith("dtd: ")]
    assert len(lines) > 1 and [one for one in lines if one not in said] == []


def test_tensors_that_a_task_keeps_exactly_are_named_by_add_and_not_by_remove(
    bank: Path, family: Path, randes: Run
) -> None:
    words = "c: keeps 1 tensor exactly (ids): integer or scalar"
    assert words in randes("add", bank, family / "c.safetensors").err
    assert "keeps" not in randes("remove", bank, "c").err
