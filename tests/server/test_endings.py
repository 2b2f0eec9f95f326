"""However a request ends, others do not notice: hang-ups, full queues, failures, a stop."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from randes_cli.server.generating import Generating, Sizes
from randes_cli.server.service import Server, Service, Serving
from tests.server.service import Alone, client, connection, http, serving, until

LONG: dict[str, Any] = {"model": "task-1", "prompt": "long", "max_tokens": 240, "temperature": 0}


class Gate:
    """Between the steps of a server's model: counts them, holds them up, makes them fail.

    Attributes:
        sound: steps from which on they fail.
    """

    def __init__(self, service: Service, most: float = inf) -> None:
        (lane,) = service.engine.current.lanes
        assert isinstance(lane, Generating)
        self.lane = lane
        self.steps, self.most, self.sound = 0, most, inf
        self._changed = threading.Condition()
        forward = lane._forward

        def gated(*given: Any) -> Any:
            with self._changed:
                self._changed.wait_for(lambda: self.steps < self.most)
            self.steps += 1
            if self.steps > self.sound:
                raise RuntimeError("secret prompt")
            return forward(*given)

        lane._forward = gated  # type: ignore[assignment, method-assign]

    def let(self, most: float = inf) -> None:
        """Let so many steps be made in all."""
        with self._changed:
            self.most = most
            self._changed.notify()


def asked(wish: dict[str, Any]) -> bytes:
    """A request as it goes over a connection."""
    body = json.dumps(wish).encode()
    return (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


@pytest.fixture
def narrow(bank: Path) -> Iterator[tuple[Service, Gate]]:
    """A server of one row, in which three answers may wait."""
    with serving(bank, Sizes(rows=1), Serving(port=0, waiting=3), tasks=("task-1",)) as service:
        gate = Gate(service)
        yield service, gate
        gate.sound = inf
        gate.let()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place(narrow: tuple[Service, Gate], stream: bool) -> None:
    service, gate = narrow
    gate.let(0)
    sent = asked({**LONG, "stream": stream})
    running, waiting = connection(service), connection(service)
    running.sendall(sent)
    until(lambda: service.engine.running == 1)
    waiting.sendall(sent)
    until(lambda: service.engine.waiting == 1)
    assert gate.lane.joining
    answers = [*gate.lane.joining.rows, *(job for _, job in service.engine._inbox)]
    for one in (waiting, running):
        one.close()
    until(lambda: [answer.gone for answer in answers] == [True, True])
    gate.let()
    until(lambda: service.engine.running == service.engine.waiting == 0)
    assert gate.steps <= 2  # the one that was held up, and what followed it at once


def test_a_full_queue_says_when_to_come_again(narrow: tuple[Service, Gate], alone: Alone) -> None:
    service, gate = narrow
    gate.let(0)
    short = {**LONG, "max_tokens": 3}

    def ask() -> Any:
        return client(service).completions.create(**short)

    with ThreadPoolExecutor(5) as clients:
        first = clients.submit(ask)
        until(lambda: service.engine.running == 1)
        others = [clients.submit(ask) for _ in range(3)]
        until(lambda: service.engine.waiting == 3)
        with pytest.raises(openai.RateLimitError) as full:
            ask()
        assert full.value.response.headers["retry-after"] == "1"
        assert full.value.code == "queue_full"
        with pytest.raises(openai.UnprocessableEntityError, match="more than 3"):
            client(service).completions.create(n=4, **short)
        gate.let()
        texts = {one.result().choices[0].text for one in (first, *others)}
    assert texts == {alone.text("task-1", "long", 3)}


def test_an_error_in_mid_stream_is_an_event_and_others_go_on(
    narrow: tuple[Service, Gate], alone: Alone, caplog: pytest.LogCaptureFixture
) -> None:
    service, gate = narrow
    asker, got, gate.sound = client(service), "", 20
    with pytest.raises(openai.APIError, match="the model failed") as error:
        for chunk in asker.completions.create(**LONG, stream=True):
            got += chunk.choices[0].text
    assert "secret" not in str(error.value.body) and got
    assert "RuntimeError in" in caplog.text and "secret" not in caplog.text
    with pytest.raises(openai.InternalServerError, match="the model failed"):
        asker.completions.create(**LONG)
    gate.sound = inf
    made = asker.completions.create(**{**LONG, "max_tokens": 9})
    assert made.choices[0].text == alone.text("task-1", "long", 9)


def test_a_text_that_cannot_be_made_fails_alone(
    bank: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from randes_cli.server.texts import TextReader

    push = TextReader.push

    def broken(self: TextReader, token: int) -> str:
        if self._stops == ["broken"]:
            raise RuntimeError("decoder")
        return push(self, token)

    monkeypatch.setattr(TextReader, "push", broken)
    with serving(bank, tasks=("task-1",)) as service, ThreadPoolExecutor(2) as clients:
        good = clients.submit(lambda: client(service).completions.create(**LONG))
        with pytest.raises(openai.InternalServerError, match="text could not be made"):
            client(service).completions.create(**LONG, stop="broken")
        assert good.result().choices[0].text == alone.text("task-1", "long", 240)


def start(bank: Path, *words: str, env: dict[str, str] | None = None) -> tuple[Any, str]:
    """The real command, and its address."""
    command = [sys.executable, "-m", "randes_cli", "serve", str(bank), "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    told = ""
    while not told.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()
        told += line
    return process, json.loads(told)["address"]


def test_a_server_that_is_told_to_stop_answers_first(
    bank: Path, alone: Alone, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    process, address = start(bank, "--task", "task-1", "--api-key-file", str(tmp_path / "key"))
    try:
        command = Path(f"/proc/{process.pid}/cmdline")
        assert not command.exists() or b"s3cret" not in command.read_bytes()
        asker = openai.OpenAI(base_url=f"{address}/v1", api_key="s3cret", max_retries=0)
        got = ""
        for chunk in asker.completions.create(**LONG, stream=True):
            if not got:
                process.send_signal(signal.SIGTERM)
            got += chunk.choices[0].text
        assert got == alone.text("task-1", "long", 240)
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert "long" not in err and "Traceback" not in err
        with pytest.raises(httpx.ConnectError):
            http.get(f"{address}/health")
    finally:
        process.kill()
        process.communicate()


def test_what_the_loop_itself_meets_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"message": "out of files", "exception": OSError(24, "Too many open files")}
    server = Server(uvicorn.Config(lambda: None, lifespan="off", log_config=None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)

    async def meet() -> None:
        await server.startup(sockets=[])
        for _ in range(2000):  # as often as asyncio tells of one `accept`
            asyncio.get_running_loop().call_exception_handler(told)

    logger = logging.getLogger("randes.serve")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    asyncio.run(meet())
    assert caplog.messages == ["out of files: [Errno 24] Too many open files"]


@pytest.mark.parametrize("files", [6, 8])
def test_a_server_without_open_files_for_clients_is_refused(bank: Path, files: int) -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
    words = [sys.executable, "-m", "randes_cli", "serve", str(bank), "--port", "0"]
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (74, "")
    assert "Too many open files" in done.stderr.splitlines()[-1]
