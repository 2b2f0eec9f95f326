"""A bank that is replaced is taken up, and no request is answered by another bank or task."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from randes_cli.errors import InputOutputError
from randes_cli.server import edition, watch
from randes_cli.server.generating import Sizes
from tests.cli.conftest import Result
from tests.models import perturb
from tests.server.service import Alone, client, http, llama, serving, text_bank, until
from tests.server.test_endings import Gate

TASKS = ("task-0", "task-1")


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two banks of one base in which the same names are other models, in other order, and one of
    another base."""
    made = []
    for number, tasks in enumerate((TASKS, TASKS[::-1])):
        folder = tmp_path_factory.mktemp(f"state-{number}")
        made.append(text_bank(folder, tasks, first=7 * number))
    other = llama()
    perturb(other, 21)
    return [*made, text_bank(tmp_path_factory.mktemp("state-2"), TASKS, other, first=22)]


@pytest.fixture
def bank(states: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(states[0], tmp_path / "bank.randes"))


def replace(bank: Path, by: Path) -> None:
    """Put another file in a bank's place, as every command of randes does."""
    shutil.copy(by, bank.with_suffix(".new"))
    os.replace(bank.with_suffix(".new"), bank)


def words(task: str, most: int = 40) -> dict[str, Any]:
    return {"model": task, "prompt": f"for {task}", "max_tokens": most, "temperature": 0}


@pytest.mark.parametrize("next_one", [1, 2], ids=["of its base", "of another base"])
def test_what_began_ends_with_the_bank_that_it_began_with(
    bank: Path, states: list[Path], next_one: int
) -> None:
    before, after = Alone(states[0]), Alone(states[next_one])
    with serving(bank, Sizes(rows=1)) as service, ThreadPoolExecutor(3) as clients:
        gate = Gate(service, 20)
        asker = client(service)
        stream = iter(asker.completions.create(**words("task-0"), stream=True))
        got = [next(stream)]
        waits = clients.submit(lambda: asker.completions.create(**words("task-1")))
        until(lambda: service.engine.waiting == 1)
        replace(bank, states[next_one])
        until(lambda: service.watch.taken == 2)
        new = clients.submit(lambda: asker.completions.create(**words("task-1")))
        gate.let()
        got += stream
        assert "".join(one.choices[0].text for one in got) == before.text(
            "task-0", "for task-0", 40
        )
        assert waits.result().choices[0].text == before.text("task-1", "for task-1", 40)
        assert new.result().choices[0].text == after.text("task-1", "for task-1", 40)
        assert len({one.system_fingerprint for one in got}) == 1
        assert waits.result().system_fingerprint == got[0].system_fingerprint
        assert new.result().system_fingerprint != got[0].system_fingerprint


def test_while_banks_come_and_go_each_answer_is_of_the_one_it_names(
    bank: Path, states: list[Path]
) -> None:
    """Elsewhere one user's request was answered by another's adapter after one was added."""
    own = list(map(Alone, states[:2]))
    wanted = {
        (state, task): own[state].text(task, f"for {task}", 12)
        for state in (0, 1)
        for task in TASKS
    }
    assert len(set(wanted.values())) == 4
    with serving(bank, Sizes(rows=4)) as service:
        names = {service.engine.current.fingerprint: 0}
        stop, answers = threading.Event(), set[tuple[str, str, str]]()

        def ask(number: int) -> None:
            asker, task = client(service), TASKS[number % 2]
            while not stop.is_set():
                found = asker.completions.create(**words(task, 12))
                answers.add((str(found.system_fingerprint), task, found.choices[0].text))

        def answered() -> bool:
            """Whether each task was asked of the bank that is there now; or a request failed."""
            now = service.engine.current.fingerprint
            told = {task for bank_, task, _ in tuple(answers) if bank_ == now}
            return told == set(TASKS) or any(one.done() for one in asking)

        with ThreadPoolExecutor(6) as clients:
            asking = [clients.submit(ask, number) for number in range(6)]
            for turn in range(1, 4):
                replace(bank, states[turn % 2])
                until(lambda taken=turn + 1: service.watch.taken == taken)
                names[service.engine.current.fingerprint] = turn % 2
                until(answered)
            stop.set()
            for one in asking:
                one.result()
    assert {(names[bank_], task) for bank_, task, _ in answers} == set(wanted)
    for bank_, task, text in answers:
        assert text == wanted[names[bank_], task]


def test_add_and_remove_are_taken_up(
    bank: Path, states: list[Path], randes: Callable[..., Result]
) -> None:
    source = states[1].parent / "task-1"
    with serving(bank) as service:
        asker = client(service)
        assert randes("add", bank, f"new={source}", "-q").code == 0
        until(lambda: "new" in {one.id for one in asker.models.list()})
        told = asker.completions.create(**words("new")).choices[0].text
        assert told == Alone(bank).text("new", "for new", 40)
        assert randes("remove", bank, "--task", "new", "--checkpoint", source, "-q").code == 0
        until(lambda: "new" not in {one.id for one in asker.models.list()})
        with pytest.raises(openai.NotFoundError):
            asker.completions.create(**words("new"))


def test_a_damaged_bank_is_not_taken_up(bank: Path, states: list[Path]) -> None:
    with serving(bank) as service:
        data = bytearray(states[1].read_bytes())
        data[len(data) // 2] ^= 255
        bank.with_suffix(".bad").write_bytes(data)
        replace(bank, bank.with_suffix(".bad"))
        until(lambda: service.watch.trouble)
        health = http.get(f"{service.address}/health").json()
        assert health == {"status": "ok", "reload": "failed"}
        made = client(service).completions.create(**words("task-0"))
        assert made.choices[0].text == Alone(states[0]).text("task-0", "for task-0", 40)
        bank.unlink()
        assert client(service).completions.create(**words("task-0")).choices == made.choices
        replace(bank, states[1])
        until(lambda: not service.watch.trouble)
        made = client(service).completions.create(**words("task-0"))
        assert made.choices[0].text == Alone(states[1]).text("task-0", "for task-0", 40)


def test_an_edition_goes_when_its_last_answer_has_and_its_base_stays(
    bank: Path, states: list[Path]
) -> None:
    with serving(bank) as service:
        (lane,) = service.engine.current.lanes
        base = {p.data_ptr() for p in lane.mixed.model.parameters()}
        gone = weakref.ref(lane)
        client(service).completions.create(**words("task-0"))
        del lane
        replace(bank, states[1])
        until(lambda: service.watch.taken == 2)
        (lane,) = service.engine.current.lanes
        assert {p.data_ptr() for p in lane.mixed.model.parameters()} == base
        until(lambda: gc.collect() >= 0 and gone() is None)


def test_a_bank_that_the_system_did_not_let_be_opened_is_tried_again(
    bank: Path, states: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same file as before: nothing of it changes when there are open files again."""
    real, full = edition.open_edition, [True]

    def opened(*given: Any) -> Any:
        if full[0]:
            raise InputOutputError("Too many open files")
        return real(*given)

    monkeypatch.setattr(watch, "open_edition", opened)
    monkeypatch.setattr(watch, "_LATER", 0.1)
    with serving(bank) as service:
        replace(bank, states[1])
        until(lambda: service.watch.trouble)
        full[0] = False
        until(lambda: service.watch.taken == 2)
        assert not service.watch.trouble
