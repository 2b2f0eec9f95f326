"""Banks of hundreds of tasks: what is shown stays of a size that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from randes_cli.cli.main import run
from randes_cli.files.bank import checks
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.stats import stored
from randes_cli.stats.stored import WHOLE, predict_bank, stored_statistics
from randes_cli.views.page import MOST_TASKS
from tests.checkpoints import Packer, perturbed, random_state, save_family

COUNT = MOST_TASKS + 60


@pytest.fixture
def many(packer: Packer) -> Path:
    base = random_state({"a.w": [12, 8], "b.w": [12, 8]})
    tasks = {f"t{n:03}": perturbed(base, seed=n) for n in range(COUNT)}
    tasks["t007"] = {name: value + 1e-3 for name, value in tasks["t251"].items()}
    return packer.pack(base, tasks)


def test_the_page_shows_the_tasks_that_are_most_alike_and_says_so(
    many: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert run(["report", str(many), "-o", str(page)]) == 0
    text = page.read_text("utf-8")
    assert f"The {MOST_TASKS} of {COUNT} tasks that are most like another." in text
    body = text.split('type="application/json"')[1].split(">", 1)[1].split("</script>")[0]
    shown = json.loads(body)
    assert len(shown["names"]) == len(shown["before"]) == len(shown["during"][0]) == MOST_TASKS
    assert {"t007", "t251"} <= set(shown["names"])
    with BankFile(many) as bank:
        report = describe(bank)
    places = [int(name[1:]) for name in shown["names"]]
    expected = np.array(report.cosine_before)[np.ix_(places, places)]
    assert np.allclose(shown["before"], expected, atol=1e-5)


def test_json_of_many_tasks_is_whole_and_on_one_line(
    many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(many), "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert len(found["cosine_before"]) == COUNT == len(found["tasks"])
    assert out.count("\n") == 1


def test_gram_matrices_of_many_tasks_are_one_for_all_tensors_and_predict_alike(many: Path) -> None:
    with BankFile(many) as bank:
        manifest, statistics = bank.manifest, stored_statistics(bank)
    assert [(name, set(members)) for name, members in manifest.cells] == [(WHOLE, {"a.w", "b.w"})]
    found = predict_bank(manifest, statistics).over().cosine
    assert abs(float(np.mean(found)) - COUNT**-0.5) < 0.03


def test_more_tasks_of_which_nothing_is_superposed_than_a_bank_has_are_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [str(path) for path in save_family(tmp_path, {"a.w": [12, 8]}, ["x", "y", "z"])]
    base, bank = str(tmp_path / "base.safetensors"), tmp_path / "b.randes"
    pack = ["pack", base, "--exact", "a.w", "-o", str(bank), "-q"]
    for module in (stored, checks):
        monkeypatch.setattr(module, "MOST_APART", 2)
    for dry in ([], ["--dry-run"]):
        assert run([*pack, *tasks, *dry]) == 2
        assert "nothing of these 3 tasks would be superposed" in capsys.readouterr().err
    assert not bank.exists() and run([*pack, *tasks[:2]]) == 0
    before = bank.read_bytes()
    assert run(["add", str(bank), tasks[2]]) == 2 and bank.read_bytes() == before
    monkeypatch.setattr(stored, "MOST_APART", 3)  # a writer that the reader contradicts
    assert run(["add", str(bank), tasks[2]]) == 2 and bank.read_bytes() == before
    assert "not written, for it could not be read again" in capsys.readouterr().err
