"""What is looked at beside a pass leaves no trace, neither in a bank nor in what is said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from randes_cli import CheckpointError, PackOptions, RandesError, RunOptions, Transform, add, pack
from randes_cli.build.inputs.inputs import open_inputs
from randes_cli.build.samples.grams import Grams
from randes_cli.workers import no_progress, run_parallel
from tests.checkpoints import Packer, State, perturbed, random_state

#: Threads of a pass: one, which does one thing after the other, or several beside this one.
_WAYS = (1, 3)


def _models() -> tuple[State, dict[str, State]]:
    """Matrices larger than a sample, of which one task changes an element that no sample has."""
    shapes = {f"layers.{n}.{kind}.weight": [96, 512] for n in range(3) for kind in "ab"}
    base = random_state({**shapes, "norm.weight": [40], "sparse.weight": [96, 512]})
    tasks = {f"t{n}": perturbed(base, seed=n) for n in range(3)}
    for task in tasks.values():
        task["sparse.weight"] = base["sparse.weight"].clone()
    tasks["t1"]["sparse.weight"][5, 3] += 0.5
    return base, tasks


@pytest.mark.parametrize("transform", ["hankel", "srsf"])
@pytest.mark.parametrize("bits", [16, 2])
def test_a_bank_and_its_report_are_the_same_beside_or_after(
    tmp_path: Path, transform: str, bits: int
) -> None:
    base, tasks = _models()
    packer, made, told = Packer(tmp_path), [], []
    source = packer.inputs({"base": base})[0].source
    options = PackOptions(transform=Transform.from_preset(transform), bits=bits, groups=2)
    for threads in _WAYS:
        out, run = tmp_path / "bank.randes", RunOptions(threads=threads, strip_elements=512)
        given = packer.inputs(tasks)
        told.append(pack(source, given[:2], out, options, run, force=True).alternatives)
        add(out, given[2:], run=run)
        made.append(out.read_bytes())
    assert made[0] == made[1]
    assert told[0] == told[1]


@pytest.mark.parametrize("bits", [16, 2])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_report_without_other_choices_is_else_the_same(
    tmp_path: Path, bits: int, dry_run: bool
) -> None:
    base, tasks = _models()
    packer, out = Packer(tmp_path), tmp_path / "bank.randes"
    source = packer.inputs({"base": base})[0].source
    given, options = packer.inputs(tasks), PackOptions(bits=bits)
    with_them, without = (
        pack(source, given, out, options, force=True, dry_run=dry_run, weigh=weigh)
        for weigh in (True, False)
    )
    assert with_them.alternatives
    assert without == replace(with_them, alternatives=(), advice=None, saving=None)


def test_a_choice_needs_them_however_little_is_told(tmp_path: Path) -> None:
    base, tasks = _models()
    packer, made = Packer(tmp_path), []
    source = packer.inputs({"base": base})[0].source
    for weigh in (True, False):
        out = tmp_path / "bank.randes"
        options = PackOptions(fit="1.3")
        pack(source, packer.inputs(tasks), out, options, force=True, weigh=weigh)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_an_error_is_the_one_that_the_pass_meets(tmp_path: Path) -> None:
    base, tasks = _models()
    tasks["t0"]["layers.2.a.weight"][0, 0] = float("nan")
    packer, said = Packer(tmp_path), []
    source = packer.inputs({"base": base})[0].source
    for threads in _WAYS:
        run = RunOptions(threads=threads, strip_elements=512)
        with pytest.raises(CheckpointError) as error:
            pack(source, packer.inputs(tasks), tmp_path / "bank.randes", run=run)
        said.append(str(error.value))
    assert "layers.2.a.weight" in said[0]
    assert said[0] == said[1]


def test_what_a_step_cannot_read_is_said_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tasks = _models()
    packer = Packer(tmp_path)
    source = packer.inputs({"base": base})[0].source
    given = packer.inputs(tasks)
    with ExitStack() as stack:
        inputs = open_inputs(stack, source, given, PackOptions(), keep_going=False, fetch=True)
        names = [name for unit in inputs.units for name in unit.names]
        cells = [(name, (name,)) for name in names]
        grams = Grams(inputs.base.source, inputs.participants, inputs.units, cells, names)

        def fails(*_: object) -> None:
            raise CheckpointError("the disk is gone")

        with monkeypatch.context() as context:
            context.setattr(Grams, "_look", fails)
            assert len([step() for step in grams.beside()]) == 1
            with pytest.raises(CheckpointError, match="the disk is gone"):
                grams.gather(no_progress)
        whole = Grams(inputs.base.source, inputs.participants, inputs.units, cells, names)
        assert (grams.gather(no_progress)[0] == whole.gather(no_progress)[0]).all()


def test_steps_end_where_a_job_fails() -> None:
    started = threading.Event()

    def steps() -> Iterator[Callable[[], None]]:
        while True:  # for ever, but for the failure
            yield started.set

    def work(_: None, job: int) -> int:
        assert started.wait(60)
        raise RandesError("no more")

    with pytest.raises(RandesError, match="no more"):
        run_parallel(
            range(9),
            lambda: None,
            work,
            threads=2,
            phase="",
            total=9,
            progress=no_progress,
            beside=steps(),
        )
