"""What a server refuses: each with its status, and the field that is why, in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from randes_cli.server.guard import Limits
from randes_cli.server.service import Service, Serving, hosts_of
from tests.cli.conftest import Result
from tests.server.service import alphabet, client, connection, http, serving, text_bank

ASK: dict[str, Any] = {"model": "task-0", "prompt": "x"}
TALK: dict[str, Any] = {"model": "task-0", "messages": [{"role": "user", "content": "x"}]}


def post(service: Service, path: str, body: Any, **headers: str) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **headers}
    return http.post(service.address + path, content=data, headers=headers)


BAD: list[tuple[Any, str | None]] = [
    ({**ASK, "temperature": "hot"}, "temperature"),
    ({**ASK, "temperature": 2.5}, "temperature"),
    ({**ASK, "top_p": -0.1}, "top_p"),
    ({**ASK, "n": 0}, "n"),
    ({**ASK, "n": 10_000}, "n"),
    ({**ASK, "max_tokens": 0}, "max_tokens"),
    ({**ASK, "max_tokens": True}, "max_tokens"),
    ({**ASK, "max_tokens": 256}, "prompt"),
    ({**ASK, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({**ASK, "stop": ""}, "stop"),
    ({**ASK, "seed": "s"}, "seed"),
    ({**ASK, "seed": 2**64}, "seed"),
    ({**ASK, "logprobs": 6}, "logprobs"),
    ({**ASK, "logit_bias": {"x": 1}}, "logit_bias"),
    ({**ASK, "logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    ({**ASK, "logit_bias": {str(len(alphabet())): 1}}, "logit_bias"),
    ({**ASK, "echo": True}, "echo"),
    ({**ASK, "best_of": 2}, "best_of"),
    ({**ASK, "suffix": "y"}, "suffix"),
    ({**ASK, "nonsense": 1}, "nonsense"),
    ({**ASK, "prompt": ""}, "prompt"),
    ({**ASK, "prompt": []}, "prompt"),
    ({**ASK, "prompt": [5, len(alphabet())]}, "prompt"),
    ({**ASK, "prompt": [-1]}, "prompt"),
    ({**ASK, "prompt": "x" * 300}, "prompt"),
    ({**ASK, "prompt": "\ud800"}, "prompt"),
    ({**ASK, "stream_options": {"nonsense": True}}, "stream_options.nonsense"),
    ({**ASK, "model": 7}, "model"),
    ({"prompt": "x"}, "model"),
    (b"{", None),
    (b"[" * 100_000, None),
    (b"\xff\xfe", None),
    (b"7", None),
]
BAD_TALK: list[tuple[Any, str | None]] = [
    ({**TALK, "messages": []}, "messages"),
    ({**TALK, "messages": [{"role": "god", "content": "x"}]}, "messages[0].role"),
    (
        {**TALK, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content",
    ),
    ({**TALK, "tools": [{"type": "function"}]}, "tools"),
    ({**TALK, "response_format": {"type": "json_object"}}, "response_format"),
    ({**TALK, "top_logprobs": 3}, "top_logprobs"),
    ({**TALK, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({**TALK, "reasoning_effort": "high"}, "reasoning_effort"),
    (
        {**TALK, "messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
        "messages[0].tool_calls",
    ),
]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [("/v1/completions", *one) for one in BAD]
    + [("/v1/chat/completions", *one) for one in BAD_TALK],
)
def test_a_bad_field_is_named(service: Service, path: str, body: Any, field: str | None) -> None:
    found = post(service, path, body)
    error = found.json()["error"]
    assert (found.status_code, error["type"]) == (422, "invalid_request_error"), error
    assert (error["param"] or "").startswith(field or ""), error
    assert field is None or error["param"] is not None
    assert "\n" not in error["message"] and len(error["message"]) < 600


def test_fields_that_ask_for_nothing_are_taken(asker: openai.OpenAI) -> None:
    made = asker.chat.completions.create(
        model="task-0",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        max_completion_tokens=1,
        tools=[],
        response_format={"type": "text"},
        parallel_tool_calls=True,
        store=False,
        user="someone",
        metadata={"a": "b"},
    )
    assert made.usage is not None and made.usage.completion_tokens == 1


@pytest.mark.parametrize("name", ["task-", "tsak-3", "../task-0", "/etc/passwd", "task-0/", "\0"])
def test_an_unknown_model_is_answered_with_the_nearest(service: Service, name: str) -> None:
    found = post(service, "/v1/completions", {**ASK, "model": name})
    error = found.json()["error"]
    assert (found.status_code, error["code"]) == (404, "model_not_found")
    assert error["message"].rpartition(" ")[2].removesuffix("?)") in service.engine.current.models
    with pytest.raises(openai.NotFoundError, match=r"did you mean task-3\?"):
        client(service).models.retrieve("tsak-3")


def test_other_addresses_and_methods_are_refused_in_the_same_shape(service: Service) -> None:
    for path, method, status in (("/v2", "GET", 404), ("/v1/completions", "GET", 405)):
        found = http.request(method, service.address + path)
        assert (found.status_code, found.json()["error"]["param"]) == (status, None)


def test_a_conversation_with_a_task_without_a_template_is_refused(tmp_path: Path) -> None:
    bank = text_bank(tmp_path, ["plain"], template=None)
    with serving(bank) as service:
        found = post(service, "/v1/chat/completions", {**TALK, "model": "plain"})
    assert found.status_code == 422 and "template" in found.json()["error"]["message"]


@pytest.fixture(scope="module")
def strict(bank: Path) -> Iterator[Service]:
    """A server with a key, that knows one more name of itself, and takes two kilobytes."""
    limits = Limits(b"secret", 2000, 600.0, hosts_of("127.0.0.1", ("bank.example",)))
    with serving(bank, how=Serving(port=0, limits=limits)) as made:
        yield made


@pytest.fixture(scope="module")
def hasty(bank: Path) -> Iterator[Service]:
    """A server that waits for a second."""
    limits = Limits(b"secret", 2000, 1.0, hosts_of("127.0.0.1", ()))
    with serving(bank, how=Serving(port=0, limits=limits), tasks=("task-0",)) as made:
        yield made


def test_without_the_key_nothing_is_told(strict: Service) -> None:
    for key in ("wrong", "secre", "secret2"):
        with pytest.raises(openai.AuthenticationError):
            client(strict, api_key=key).models.list()
    for shown in (b"", b"Bearer", b"Bearer s\xe9cret", b"Basic secret", b"secret"):
        found = http.get(f"{strict.address}/v1/models", headers={b"authorization": shown})
        assert found.status_code == 401
    for path in ("/v1/models", "/metrics", "/v1/models/task-0", "/nothing"):
        found = http.get(strict.address + path)
        assert found.status_code == 401 and found.headers["www-authenticate"] == "Bearer"
        assert "task" not in found.text
    assert http.get(f"{strict.address}/health").json() == {"status": "ok", "reload": "ok"}
    asker = client(strict, api_key="secret")
    assert len(asker.models.list().data) == 9
    made = asker.completions.create(model="task-0", prompt="x", max_tokens=1)
    assert made.usage is not None and made.usage.completion_tokens == 1


def test_a_page_of_another_site_cannot_ask(strict: Service, service: Service) -> None:
    key = {"authorization": "Bearer secret"}
    path = f"{strict.address}/v1/models"
    assert http.get(path, headers={**key, "host": "evil.example"}).status_code == 421
    assert http.get(path, headers={**key, "host": "bank.example:80"}).status_code == 200
    plain = post(service, "/v1/completions", ASK, **{"content-type": "text/plain"})
    assert plain.status_code == 415
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    found = http.options(f"{service.address}/v1/completions", headers=asked)
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_pages_that_were_named_can_ask(bank: Path) -> None:
    limits = Limits(b"secret", origins=("https://good.example",))
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    with serving(bank, how=Serving(port=0, limits=limits), tasks=("task-0",)) as service:
        for site, there in (("https://good.example", True), ("https://evil.example", False)):
            found = http.options(
                f"{service.address}/v1/completions", headers={**asked, "origin": site}
            )
            assert ("access-control-allow-origin" in found.headers) is there


def test_a_body_beyond_the_limit_is_refused_however_it_comes(strict: Service) -> None:
    key = {"authorization": "Bearer secret"}
    long = {**ASK, "prompt": "x" * 3000}
    assert post(strict, "/v1/completions", long, **key).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield from [b" " * 500] * 10

    found = http.post(
        f"{strict.address}/v1/completions",
        content=pieces(),
        headers={**key, "content-type": "application/json"},
    )
    assert found.status_code == 413


def read_all(service: Service, sent: bytes) -> bytes:
    """What comes back of a connection that sends so much and waits."""
    with connection(service) as made:
        made.sendall(sent)
        found = b""
        try:
            while data := made.recv(4096):
                found += data
        except ConnectionResetError:
            pass
        return found


def test_a_client_that_is_silent_is_cut_off(hasty: Service) -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n"
    )
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = [b"", head, head + b"\r\n{", whole, whole + whole[:20]]
    with ThreadPoolExecutor(len(sent)) as clients:
        none, half, begun, one, more = clients.map(partial(read_all, hasty), sent)
    assert none == half == b""
    assert b" 408 " in begun.partition(b"\r\n")[0]
    assert one.startswith(b"HTTP/1.1 200")
    assert more.count(b"HTTP/1.1 200") == 1


def test_a_client_that_takes_nothing_is_cut_off(hasty: Service) -> None:
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connection(hasty) as made, pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            made.sendall(ask * 100)


def test_banks_and_addresses_that_cannot_be_served_are_one_sentence(
    tmp_path: Path, bank: Path, service: Service, randes: Callable[..., Result]
) -> None:
    port = service.address.rpartition(":")[2]
    for words, code, said in (
        ([tmp_path / "none.randes"], 5, "none.randes"),
        ([bank, "--task", "tsak-1", "--port", "0"], 5, "task-1"),
        ([bank, "--port", port], 74, "cannot listen at 127.0.0.1"),
        ([bank, "--api-key", "a b"], 2, "one word"),
        ([bank, "--api-key-file", tmp_path / "no-key"], 5, "no-key"),
        ([bank, "--api-key-file", "/dev/zero"], 2, "one word"),
        ([bank, "--hold", "tight", "--port", "0"], 2, "'dense' or 'codes'"),
        ([bank, "--device", "abacus", "--port", "0"], 2, "abacus"),
        ([bank, "--dtype", "float7", "--port", "0"], 2, "float7"),
    ):
        found = randes("serve", *words)
        assert (found.code, found.out) == (code, ""), found
        assert said in found.err.splitlines()[-1]


def test_configs_and_tokenizers_that_are_none_are_one_sentence(
    tmp_path: Path, randes: Callable[..., Result]
) -> None:
    text_bank(tmp_path, ("task-0",))
    models, bank = (tmp_path / "base", tmp_path / "task-0"), tmp_path / "broken.randes"
    for name, text in (
        ("config.json", '{"model_type": "no such"}'),
        ("config.json", '{"model_type": "llama", "architectures": 5}'),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "[" * 100_000),
        ("generation_config.json", "{"),
    ):
        whole = (models[0] / name).read_bytes()
        for model in models:
            (model / name).write_text(text)
        assert randes("pack", *models, "-o", bank, "--force").code == 0
        found = randes("serve", bank, "--port", "0")
        assert (found.code, "the config or tokenizer of " in found.err) == (3, True), found
        for model in models:
            (model / name).write_bytes(whole)


def test_what_to_install_is_said(
    bank: Path, randes: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.cli.serve.find_spec", lambda name: None)
    found = randes("serve", bank)
    assert found.code == 2 and found.err.count("\n") == 1
    assert "pip install 'randes-cli[serve]'" in found.err
