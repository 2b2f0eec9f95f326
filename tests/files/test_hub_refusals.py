"""What the Hub refuses, and connections that drop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from randes_cli.errors import HubError
from randes_cli.files.hub.ref import HubRef
from randes_cli.files.hub.repository import fetch, open_hub, remote_checkpoint
from tests.files.hub_models import ID, REF, WHOLE, said

if TYPE_CHECKING:
    from tests.hub_server import HubServer

# Errors


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (
            403,
            "GatedRepo",
            "gated; accept its terms at HUB/maker/model and log in with that account "
            "(hf auth login, or HF_TOKEN)",
        ),
        (
            401,
            "GatedRepo",
            "gated; accept its terms at HUB/maker/model and log in with that account "
            "(hf auth login, or HF_TOKEN)",
        ),
        (
            404,
            "RepoNotFound",
            "not at HUB, or private and not open to your token (hf auth login, or HF_TOKEN); "
            "nor is there such a path here",
        ),
        (404, "RevisionNotFound", "maker/model has no such branch, tag or commit"),
        (404, "EntryNotFound", "maker/model has no such file at this revision"),
        (401, "", "nobody is logged in here; log in first (hf auth login, or HF_TOKEN)"),
        (403, "", "your token has no right to do this; see the settings of HUB/maker/model"),
        (
            429,
            "",
            "too many requests to HUB; wait 7 seconds, or log in (hf auth login, or HF_TOKEN) "
            "for more",
        ),
    ],
)
@pytest.mark.parametrize("part", ["/api/models/", "/resolve/"])
def test_each_refusal_of_the_hub_has_its_own_sentence(
    hub: HubServer, part: str, status: int, code: str, sentence: str
) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    hub.fail(part, status, code, headers={"Retry-After": "7"})
    with pytest.raises(HubError) as error:
        remote_checkpoint(open_hub(REF)).__enter__()
    where = f"{ID}@{commit[:12]}/model.safetensors" if part == "/resolve/" else ID
    assert said(hub, error) == f"{where}: {sentence}"


def test_a_token_that_is_refused_is_told_from_none(writer: HubServer) -> None:
    writer.add(ID, {"model.safetensors": WHOLE})
    writer.fail("/api/models/", 401)
    with pytest.raises(HubError) as error:
        remote_checkpoint(open_hub(REF)).__enter__()
    sentence = "HUB refused your token; log in anew (hf auth login, or HF_TOKEN)"
    assert said(writer, error) == f"{ID}: {sentence}"


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "GatedRepo", "gated; accept its terms"),
        (404, "RepoNotFound", "not at HUB, or private"),
        (429, "", "too many requests to HUB; wait some minutes"),
        (503, "", "HUB answered 503"),
    ],
)
def test_a_refusal_in_the_middle_of_a_download_has_the_same_sentence(
    hub: HubServer, status: int, code: str, sentence: str
) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    model = open_hub(REF)
    hub.fail("/resolve/", status, code)
    with pytest.raises(HubError) as error:
        fetch(model)
    assert said(hub, error).startswith(f"{ID}: {sentence}")


def test_a_private_or_missing_repository_says_so(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    hub.repos[ID].private = True
    for ref in (REF, HubRef("maker/none")):
        with pytest.raises(HubError) as error:
            open_hub(ref)
        assert said(hub, error).startswith(f"{ref}: not at HUB, or private and not open to your")


def test_an_unknown_revision_or_file_says_so(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    with pytest.raises(HubError) as error:
        open_hub(HubRef(ID, "v9"))
    assert said(hub, error) == f"{ID}@v9: {ID} has no such branch, tag or commit"
    with pytest.raises(HubError) as error:
        open_hub(HubRef(ID, None, "sub/none.safetensors"))
    assert said(hub, error) == (
        f"{ID}:sub/none.safetensors: {ID} has no such file or folder at this revision"
    )


def test_a_connection_that_drops_is_made_again(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    model = open_hub(REF)
    hub.drop("/cdn/", 100, times=2)
    with remote_checkpoint(model):
        pass
    ranges = [request.range for request in hub.requests if "/cdn/" in request.path]
    assert ranges == ["bytes=0-65535"] * 3
    hub.drop("/cdn/", 5000, times=3)
    path = fetch(model) / "model.safetensors"
    assert path.read_bytes() == WHOLE


def test_a_connection_that_keeps_dropping_says_so(hub: HubServer) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    model = open_hub(REF)
    hub.drop("/cdn/", 0)
    for call, where in (
        (lambda: remote_checkpoint(model).__enter__(), f"{ID}@{commit[:12]}/model.safetensors"),
        (lambda: fetch(model), ID),
    ):
        with pytest.raises(HubError) as error:
            call()
        text = said(hub, error)
        assert text.startswith(f"{where}: the connection to HUB failed or was dropped (")
        assert text.endswith("say it again when it is back: complete files are kept")
    assert not model.cached("model.safetensors")


def test_a_hub_that_nobody_runs_says_so(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"connection to http://127.0.0.1:9 failed or was dropped"):
        open_hub(REF)


def test_a_token_in_the_address_of_the_hub_is_shown_nowhere(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    from randes_cli.cli.main import run
    from randes_cli.errors import without_login
    from randes_cli.files.hub.errors import endpoint

    monkeypatch.setattr(constants, "ENDPOINT", "http://user:hf_secret@127.0.0.1:9")
    for words in (["inspect", ID], ["inspect", ID, "--debug"], ["unpack", ID, "-t", "a"]):
        assert run(words) == 9
        said = capsys.readouterr().err
        assert "127.0.0.1:9" in said and "hf_secret" not in said and "user" not in said
    assert endpoint() == "http://127.0.0.1:9"
    assert without_login("a https://x:y@h/p?q=z@w b") == "a https://h/p b"


@pytest.mark.parametrize("answer", [[], {}, None])
def test_an_answer_that_no_hub_gives_is_no_internal_error(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    from tests.hub_answers import Handler

    def odd(self: Handler) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    monkeypatch.setattr(Handler, "do_GET", odd)
    with pytest.raises(HubError, match=f"^{ID}: {hub.url} gave no answer of a Hub"):
        open_hub(HubRef(ID))
