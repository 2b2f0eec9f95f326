"""`pack --keep` and `--fit` keep their promise also where deltas are sparse: it is tried first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from randes_cli import PackOptions, RunOptions, pack
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import TaskInput
from tests.checkpoints import Packer, save
from tests.stats.test_true_cosines import Models

ONE = RunOptions(threads=1)


def inputs(folder: Path, kind: str, seed: int) -> tuple[str, list[TaskInput], Path]:
    models = Models(np.random.default_rng(seed), 1.0, kind)
    base, tasks = models.whole(), {f"t{n}": models.task() for n in range(3)}
    source = str(save(base, folder / "base.safetensors"))
    return source, Packer(folder).inputs(tasks), folder / "bank.randes"


def here(report: PackReport) -> Alternative:
    (found,) = [one for one in report.alternatives if one.present]
    return found


@pytest.mark.parametrize("kind", ["sparse", "low rank"])
def test_what_is_packed_to_keep_a_share_is_predicted_to_keep_it(tmp_path: Path, kind: str) -> None:
    source, tasks, bank = inputs(tmp_path, kind, 7)
    for share in (0.9, 0.99):
        made = pack(source, tasks, bank, PackOptions(keep=str(share)), ONE, force=True)
        assert here(made).kept >= share - 1e-4
        with BankFile(bank) as opened:
            (found,) = [one for one in describe(opened).alternatives if one.present]
        assert found.kept == pytest.approx(here(made).kept, abs=1e-12)
        assert found.predicted_cosine == pytest.approx(here(made).predicted_cosine, abs=1e-12)
        dry = pack(source, tasks, bank, PackOptions(keep=str(share)), ONE, force=True, dry_run=True)
        assert (dry.bits, dry.groups, dry.share) == (made.bits, made.groups, made.share)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_choices_of_few_bits_are_approximate_for_sparse_deltas(tmp_path: Path, kind: str) -> None:
    source, tasks, bank = inputs(tmp_path, kind, 7)
    made = pack(source, tasks, bank, PackOptions(), ONE)
    with BankFile(bank) as opened:
        for choices in (made.alternatives, describe(opened).alternatives):
            said = {one.bits for one in choices if one.approximate}
            assert said == ({1, 2, 3, 4} if kind == "sparse" else set())


def test_what_is_packed_within_a_size_is_not_beaten_by_another_try(tmp_path: Path) -> None:
    source, tasks, bank = inputs(tmp_path, "sparse", 8)
    made = pack(source, tasks, bank, PackOptions(fit="1.4"), ONE, force=True)
    for bits in (1, 2, 4):
        for groups in (1, 3):
            options = PackOptions(bits=bits, groups=groups)
            other = pack(source, tasks, bank, options, ONE, force=True)
            fits = other.bank_bytes <= 1.4 * other.base_bytes
            assert not fits or here(other).kept <= here(made).kept + 0.01
