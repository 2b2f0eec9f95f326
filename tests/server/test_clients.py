"""What clients send and ask for beside prompts: OpenAI's fields, their own answers, heads."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import openai
import pytest

from randes_cli.server.bodies import _NOT_CARRIED_OUT, ChatBody, CompletionBody, EmbeddingBody
from randes_cli.server.service import Service, Serving
from tests.server.service import http, serving
from tests.server.test_refusals import post


def test_all_that_openais_client_may_send_is_known_here() -> None:
    known: dict[Any, Any] = {
        ChatBody: openai.types.chat.completion_create_params.CompletionCreateParamsNonStreaming,
        CompletionBody: openai.types.completion_create_params.CompletionCreateParamsNonStreaming,
        EmbeddingBody: openai.types.EmbeddingCreateParams,
    }
    for body, sent in known.items():
        assert set(get_type_hints(sent)) <= {*body.model_fields, *_NOT_CARRIED_OUT}


def test_an_answer_goes_back_with_the_next_turn_however_it_is_written(asker: openai.OpenAI) -> None:
    said: Any = {"role": "user", "content": "hi"}
    ask = partial(asker.chat.completions.create, model="task-0", max_tokens=2, temperature=0)
    answer = ask(messages=[said]).choices[0].message
    plain = {"role": "assistant", "content": answer.content}
    wanted = ask(messages=[said, plain, said]).choices[0].message.content
    lists = {**answer.model_dump(), "tool_calls": [], "annotations": []}
    for form in (answer, answer.model_dump(), answer.to_dict(), lists):
        assert ask(messages=[said, form, said]).choices[0].message.content == wanted


def test_what_is_got_may_be_asked_for_its_head(service: Service) -> None:
    for path in ("/", "/health", "/metrics", "/v1/models", "/v1/models/base"):
        found = http.head(service.address + path)
        assert (found.status_code, found.content) == (200, b"")
        assert (
            found.headers["content-type"]
            == http.get(service.address + path).headers["content-type"]
        )


def test_a_body_that_is_not_json_is_said_to_be_none(service: Service) -> None:
    error = post(service, "/v1/completions", b"{").json()["error"]
    assert (error["message"], error["param"]) == ("the body: is not JSON", None)


def test_requests_that_are_logged_whole_are_one_line_whatever_they_hold(
    bank: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("randes.serve")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "randes.serve")
    body = b'{"model": "task-1", "prompt": "a\\n\xe2\x80\xae", "max_tokens": 1, "user": "\\ud800"}'
    how = Serving(port=0, look=0.05, prompts=True)
    with serving(bank, how=how, tasks=("task-1",)) as service:
        assert post(service, "/v1/completions", body).status_code == 200
    (line,) = (one for one in caplog.messages if one.startswith("task-1: "))
    assert "\\u202e" in line and "\\ud800" in line and line.isascii() and "\n" not in line
