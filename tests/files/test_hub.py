"""Models on the Hub, through the real client and a server on 127.0.0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save

from randes_cli.build.pack import pack
from randes_cli.errors import CheckpointError, HubError, RandesError, UsageError
from randes_cli.files.checkpoint import open_checkpoint
from randes_cli.files.header import encode_header
from randes_cli.files.hub import fetch, open_hub, open_hub_bank, open_remote_bank, remote_checkpoint
from randes_cli.files.hub_ref import HubRef, parse_ref, recorded_ref
from randes_cli.fit import fit_task
from randes_cli.ops.describe import describe
from randes_cli.specs import OpenOptions, TaskInput, TensorInfo

if TYPE_CHECKING:
    from tests.hub_server import HubServer

pytest_plugins = ["tests.hub_server"]

ID = "maker/model"
REF = HubRef(ID)
CONFIG = b'{"model_type": "bert"}'


def weights(*names: str, rows: int = 64, seed: int = 0) -> bytes:
    """A safetensors file with these float32 tensors of 64 columns."""
    source = np.random.default_rng(seed)
    return save({n: source.standard_normal((rows, 64)).astype(np.float32) for n in names})


WHOLE = weights("a", "b", rows=1000)


def sharded() -> dict[str, bytes]:
    """Two shards and their index."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"metadata": {}, "weight_map": {"a": first, "b": second}}
    return {
        "config.json": CONFIG,
        first: weights("a", seed=1),
        second: weights("b", seed=2),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


def said(hub: HubServer, error: pytest.ExceptionInfo[RandesError]) -> str:
    """The error's sentence without what changes from run to run."""
    assert error.value.exit_code == 9
    return str(error.value).replace(hub.url, "HUB")


# Names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org/name", HubRef("org/name")),
        ("org/name@v1.0", HubRef("org/name", "v1.0")),
        ("org/Qwen2.5-0.5B@refs/pr/3", HubRef("org/Qwen2.5-0.5B", "refs/pr/3")),
        ("org/name:sub/model.safetensors", HubRef("org/name", None, "sub/model.safetensors")),
        ("org/name@rev:sub/", HubRef("org/name", "rev", "sub")),
        ("hf://org/name", HubRef("org/name")),
        ("hf://models/org/name@rev:a.st", HubRef("org/name", "rev", "a.st")),
        ("hf://org/name/sub/a.st", HubRef("org/name", None, "sub/a.st")),
        ("hf://org/name@rev/sub/a.st", HubRef("org/name", "rev", "sub/a.st")),
        ("hf://org/name@refs/pr/3/a.st", HubRef("org/name", "refs/pr/3", "a.st")),
        ("hf://org/name@refs/pr/3", HubRef("org/name", "refs/pr/3")),
    ],
)
def test_names_of_the_hub_are_read(text: str, found: HubRef) -> None:
    assert parse_ref(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "./org/name",
        "/org/name",
        "../name",
        "~/name",
        "a/b/c",
        "out/model.safetensors",
        "out/bank.randes",
        "org/name@",
        "org/name:",
        "org/.hidden",
        "",
    ],
)
def test_what_cannot_be_on_the_hub_is_left_to_the_file_system(text: str) -> None:
    assert parse_ref(text) is None


def test_a_path_that_exists_wins_unless_the_scheme_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_ref("org/name") is None
    assert parse_ref("hf://org/name") == HubRef("org/name")


@pytest.mark.parametrize(
    "text",
    ["datasets/org/name", "hf://datasets/org/name", "hf://spaces/o/n@main", "hf://buckets/o/n"],
)
def test_datasets_and_spaces_are_refused_by_kind(text: str) -> None:
    with pytest.raises(UsageError, match=r"randes reads models of the Hub, not (data|spa|buck)"):
        parse_ref(text)


@pytest.mark.parametrize("text", ["hf://name", "hf://org/na me", "hf://", "hf://org/name@"])
def test_a_broken_hub_name_with_the_scheme_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a model of the Hub"):
        parse_ref(text)


@pytest.mark.parametrize("text", ["org/name:../x", "hf://org/name:a/./b", "org/name:a//b"])
def test_a_path_that_leaves_the_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a path inside a repository"):
        parse_ref(text)


def test_a_reference_reads_back_what_it_writes_and_names_a_task() -> None:
    for ref in (REF, HubRef(ID, "v1"), HubRef(ID, None, "sub/x.safetensors")):
        assert parse_ref(str(ref)) == ref
    assert [HubRef(ID).name, HubRef(ID, "v", "sub/x.st").name, HubRef(ID, None, "unet").name] == [
        "model",
        "x",
        "unet",
    ]


def test_only_a_source_with_a_whole_commit_is_a_recorded_model() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert recorded_ref(f"{ID}@{commit}:sub/x.st") == HubRef(ID, commit, "sub/x.st")
    for source in ("models/base", "models/base@v1", "base.safetensors", f"{ID}@{commit[:39]}"):
        assert recorded_ref(source) is None


# Looking and refusing


def test_headers_are_read_by_range_and_the_data_stay(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE, "config.json": CONFIG, "logo.png": b"x"})
    model = open_hub(REF)
    with remote_checkpoint(model) as found:
        assert found.tensors == {n: TensorInfo(n, "F32", (1000, 64)) for n in "ab"}
    assert (model.weights, model.nbytes) == (("model.safetensors",), len(WHOLE))
    assert model.bytes_to_download() == len(WHOLE)
    ranges = [request.range for request in hub.requests if "/cdn/" in request.path]
    assert ranges == ["bytes=0-65535"]
    assert hub.body_bytes < 65536 + 2000 < len(WHOLE)


def test_a_long_header_takes_one_more_range(hub: HubServer) -> None:
    names = [f"layers.{number}.a_long_name_of_a_weight" for number in range(2000)]
    data = save({name: np.zeros((1, 8), np.float32) for name in names})
    hub.add(ID, {"model.safetensors": data})
    with remote_checkpoint(open_hub(REF)) as found:
        assert set(found.tensors) == set(names)
    ranges = [request.range for request in hub.requests if "/cdn/" in request.path]
    header = 8 + int.from_bytes(data[:8], "little")
    assert ranges == ["bytes=0-65535", f"bytes=65536-{header - 1}"]


def test_an_incompatible_model_is_refused_before_its_data_move(hub: HubServer) -> None:
    hub.add("maker/base", {"model.safetensors": WHOLE})
    hub.add(ID, {"model.safetensors": weights("other", rows=2000)})
    with (
        remote_checkpoint(open_hub(HubRef("maker/base"))) as base,
        remote_checkpoint(open_hub(REF)) as task,
    ):
        fit = fit_task(base.tensors, task.tensors, list(base.tensors))
    assert fit.matched == 0
    assert hub.body_bytes < 2 * 65536 + 4000


def test_every_request_after_the_first_names_the_commit(hub: HubServer) -> None:
    commit = hub.add(ID, sharded())
    model = open_hub(REF)
    with remote_checkpoint(model):
        pass
    hub.add(ID, {"model-00001-of-00002.safetensors": weights("a", seed=9)})
    fetched = fetch(model)
    first, *others = [r.path for r in hub.requests if "/cdn/" not in r.path]
    assert first == f"/api/models/{ID}"
    assert others
    assert all(commit in path for path in others)
    assert fetched.source == f"{ID}@{commit}"
    with open_checkpoint(str(fetched.path)) as found:
        data = np.empty(64 * 64 * 4, np.uint8)
        found.read("a", 0, data)
    assert data.tobytes() == weights("a", seed=1)[-len(data) :]


def test_a_branch_a_tag_and_a_pull_request_are_resolved(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    other = hub.add(ID, {"model.safetensors": weights("c")}, branch="refs/pr/1")
    model = open_hub(HubRef(ID, "refs/pr/1"))
    assert model.commit == other
    with remote_checkpoint(model) as found:
        assert list(found.tensors) == ["c"]
    assert fetch(model).source == f"{ID}@{other}"


def test_a_commit_needs_no_resolving(hub: HubServer) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    assert open_hub(HubRef(ID, commit)).commit == commit
    assert [request.path.split("?")[0] for request in hub.requests] == [
        f"/api/models/{ID}/revision/{commit}",
        f"/api/models/{ID}/tree/{commit}",
    ]


@pytest.mark.parametrize(
    ("files", "path", "chosen"),
    [
        (["model.safetensors", "model-x.safetensors"], "", ["model.safetensors"]),
        (["pytorch_model.bin", "model.safetensors"], "", ["model.safetensors"]),
        (["diffusion_pytorch_model.safetensors"], "", ["diffusion_pytorch_model.safetensors"]),
        (["adapter_model.safetensors"], "", ["adapter_model.safetensors"]),
        (
            ["only.safetensors", "x/model.safetensors"],
            "",
            ["only.safetensors", "x/model.safetensors"],
        ),
        (["model.safetensors", "sub/model.safetensors"], "sub", ["sub/model.safetensors"]),
        (["a.safetensors", "b.safetensors"], "b.safetensors", ["b.safetensors"]),
    ],
)
def test_the_weight_files_are_those_that_a_folder_would_give(
    hub: HubServer, files: list[str], path: str, chosen: list[str]
) -> None:
    hub.add(ID, dict.fromkeys(files, WHOLE))
    assert list(open_hub(HubRef(ID, None, path)).weights) == chosen


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.safetensors", "b.safetensors"], f"{ID}: has 2 weight files"),
        (["README.md"], f"{ID}: no safetensors file"),
        (["pytorch_model.bin"], f"{ID}:pytorch_model.bin: pickled weights"),
    ],
)
def test_a_repository_without_clear_weights_is_refused_by_name(
    hub: HubServer, files: list[str], message: str
) -> None:
    hub.add(ID, dict.fromkeys(files, b"x"))
    with pytest.raises(CheckpointError, match=message):
        open_hub(REF)


def test_a_missing_shard_is_named_before_anything_is_read(hub: HubServer) -> None:
    files = sharded()
    del files["model-00002-of-00002.safetensors"]
    hub.add(ID, files)
    with pytest.raises(CheckpointError) as error:
        open_hub(REF)
    assert str(error.value) == (
        f"{ID}:model.safetensors.index.json: shard model-00002-of-00002.safetensors is missing"
    )


def test_an_index_that_its_shards_contradict_is_refused_from_the_headers(hub: HubServer) -> None:
    hub.add(ID, {**sharded(), "model-00002-of-00002.safetensors": weights("c")})
    with pytest.raises(CheckpointError) as error:
        remote_checkpoint(open_hub(REF)).__enter__()
    assert str(error.value) == (
        f"{ID}:model.safetensors.index.json: model-00002-of-00002.safetensors lacks tensor 'b'"
    )


def test_a_malformed_header_is_refused_by_the_one_decoder(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE[:-4]})
    with pytest.raises(CheckpointError, match=r"model@\w+/model.safetensors: truncated"):
        remote_checkpoint(open_hub(REF)).__enter__()


def test_a_listing_of_several_pages_is_read_whole(hub: HubServer) -> None:
    hub.page = 2
    hub.add(ID, {**sharded(), "a.txt": b"", "b.txt": b""})
    assert len(open_hub(REF).sizes) == 6


def test_names_that_would_leave_a_folder_are_not_taken_from_a_server(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE, "../evil.json": b"{}", "a\\b.json": b"{}"})
    assert list(open_hub(REF).sizes) == ["model.safetensors"]


def test_tensors_can_be_read_by_range(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    with remote_checkpoint(open_hub(REF)) as found:
        out = np.empty(999, np.uint8)
        found.read("b", 1234, out)
    assert out.tobytes() == WHOLE[-64 * 1000 * 4 :][1234 : 1234 + 999]


def test_a_server_without_ranges_gives_headers_but_no_tensors(hub: HubServer) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    hub.fail("/cdn/", 200)
    with pytest.raises(RandesError):
        remote_checkpoint(open_hub(HubRef(ID, commit))).__enter__()


def test_the_token_goes_to_the_hub_and_not_to_the_store_behind_it(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    hub.repos[ID].private = True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    model = open_hub(REF)
    with remote_checkpoint(model):
        pass
    fetch(model)
    assert {r.token for r in hub.requests if "/cdn/" in r.path} == {None}
    assert {r.token for r in hub.requests if "/cdn/" not in r.path} == {"hf_secret"}


# Fetching and the cache


def test_only_the_weights_and_their_side_files_are_fetched(hub: HubServer) -> None:
    wanted = {**sharded(), "tokenizer.json": b"{}", "README.md": b"x"}
    others = {"training_args.bin": WHOLE, "onnx/model.onnx": WHOLE, "model.py": b"1/0"}
    hub.add(ID, {**wanted, **others})
    model = open_hub(REF)
    assert set(model.side_files) == {"config.json", "tokenizer.json", "README.md"}
    assert set(model.left_out) == set(others)
    path = fetch(model).path
    assert {found.name for found in path.iterdir()} == set(wanted)
    assert model.bytes_to_download() == 0
    with open_checkpoint(str(path)) as found:
        assert set(found.side_files) == {"config.json", "tokenizer.json", "README.md"}


def test_options_decide_what_is_fetched(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE, "tokenizer.json": b"{}", "model.py": b"1/0"})
    bare = open_hub(REF, OpenOptions(safetensors_only=True))
    code = open_hub(REF, OpenOptions(trust_remote_code_files=True))
    assert bare.side_files == ()
    assert set(code.side_files) == {"tokenizer.json", "model.py"}


def test_a_pipeline_is_read_by_its_components(hub: HubServer) -> None:
    index = {"_class_name": "P", "unet": ["x", "U"], "vae": ["x", "V"], "scheduler": ["x", "S"]}
    files = {
        "model_index.json": json.dumps(index).encode(),
        "unet/config.json": CONFIG,
        "unet/diffusion_pytorch_model.safetensors": weights("a"),
        "vae/diffusion_pytorch_model.safetensors": weights("b"),
        "scheduler/scheduler_config.json": b"{}",
    }
    hub.add(ID, {**files, "whole.ckpt": WHOLE})
    model = open_hub(REF)
    with remote_checkpoint(model) as remote, open_checkpoint(str(fetch(model).path)) as local:
        assert set(remote.tensors) == {"unet/a", "vae/b"}
        assert remote.tensors == local.tensors
        assert remote.layout == local.layout
    snapshot = fetch(model).path
    found = {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}
    assert found == set(files)


def test_quantised_weights_are_refused_before_their_headers_are_read(hub: HubServer) -> None:
    config = json.dumps({"quantization_config": {"quant_method": "gptq"}}).encode()
    hub.add(ID, {"model.safetensors": WHOLE, "config.json": config})
    with pytest.raises(CheckpointError, match=r"(?i)maker/model.*gptq"):
        open_hub(REF)
    assert not any("/cdn/" in request.path for request in hub.requests)


def test_pickles_are_fetched_whole_and_only_on_request(hub: HubServer, tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.ones(30, 40)}, tmp_path / "x.bin")
    hub.add(ID, {"pytorch_model.bin": (tmp_path / "x.bin").read_bytes()})
    options = OpenOptions(allow_pickle=True)
    with remote_checkpoint(open_hub(REF, options), options) as found:
        assert found.tensors == {"a": TensorInfo("a", "F32", (30, 40))}


def test_what_is_cached_is_neither_asked_for_nor_sent_again(hub: HubServer) -> None:
    hub.add(ID, sharded())
    fetch(open_hub(REF))
    hub.forget()
    model = open_hub(REF)
    with remote_checkpoint(model):
        pass
    fetch(model)
    assert [request.path.split("?")[0] for request in hub.requests] == [
        f"/api/models/{ID}",
        f"/api/models/{ID}/revision/{model.commit}",
        f"/api/models/{ID}/tree/{model.commit}",
    ]


def test_offline_the_cached_commit_serves_whole(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add(ID, sharded())
    online = fetch(open_hub(REF))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.forget()
    for revision in (None, "main", online.source.partition("@")[2]):
        model = open_hub(HubRef(ID, revision))
        assert model.offline
        with remote_checkpoint(model) as found:
            assert set(found.tensors) == {"a", "b"}
        assert fetch(model) == online
    assert hub.requests == []


def test_offline_and_not_cached_has_its_own_sentence(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add(ID, {"model.safetensors": WHOLE, "config.json": CONFIG})
    fetch(open_hub(REF))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    end = "not in the cache, and HF_HUB_OFFLINE is set; download it once while online"
    for ref in (HubRef("maker/other"), HubRef(ID, "v2"), HubRef(ID, None, "sub/x.safetensors")):
        with pytest.raises(HubError) as error:
            open_hub(ref)
        assert said(hub, error) == f"{ref}: {end}"


def test_offline_with_only_the_config_cached_is_not_cached(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    hub.add(ID, {"model.safetensors": WHOLE, "config.json": CONFIG})
    hf_hub_download(ID, "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="not in the cache"):
        open_hub(REF)


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
        (401, "", "HUB refused your token; log in anew (hf auth login, or HF_TOKEN)"),
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
    path = fetch(model).path / "model.safetensors"
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
    from randes_cli.files.hub_errors import endpoint

    monkeypatch.setattr(constants, "ENDPOINT", "http://user:hf_secret@127.0.0.1:9")
    for words in (["inspect", ID], ["inspect", ID, "--debug"], ["unpack", ID, "-t", "a"]):
        assert run(words) == 9
        said = capsys.readouterr().err
        assert "127.0.0.1:9" in said and "hf_secret" not in said and "user" not in said
    assert endpoint() == "http://127.0.0.1:9"
    assert without_login("a https://x:y@h/p?q=z@w b") == "a https://h/p b"


# Banks


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of two tasks whose superposition is much larger than what describes it."""
    for name, seed in (("base", 0), ("one", 1), ("two", 2)):
        (tmp_path / f"{name}.safetensors").write_bytes(weights("a", "b", rows=2000, seed=seed))
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in ("one", "two")]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "two.randes")
    return tmp_path / "two.randes"


def test_a_bank_is_described_from_a_few_ranges(hub: HubServer, bank: Path) -> None:
    from randes_cli.files.bank import BankFile

    commit = hub.add(ID, {"two.randes": bank.read_bytes(), "README.md": b"x"})
    with open_remote_bank(REF) as remote, BankFile(bank) as local:
        far, near = describe(remote), describe(local)
    assert far.tasks == near.tasks
    assert far.cosine_during == near.cosine_during
    assert far.bank == f"{ID}:two.randes"
    asked = [request for request in hub.requests if "/resolve/" in request.path]
    assert all(commit in request.path and request.range for request in asked)
    assert len(asked) <= 7
    assert hub.body_bytes < 100_000 < bank.stat().st_size / 10


def test_a_bank_on_the_hub_refuses_to_be_edited(hub: HubServer, bank: Path) -> None:
    from randes_cli.cli.main import run

    hub.add(ID, {"two.randes": bank.read_bytes()})
    for words in (["add", ID, "x"], ["remove", ID, "-t", "one"], ["seal", ID, "--in-place"]):
        assert run(words) == 2


def test_a_fetched_bank_is_the_same_file(hub: HubServer, bank: Path) -> None:
    commit = hub.add(ID, {"sub/two.randes": bank.read_bytes()})
    fetched = fetch(open_hub_bank(HubRef(ID, None, "sub")))
    assert fetched.path.read_bytes() == bank.read_bytes()
    assert fetched.source == f"{ID}@{commit}:sub/two.randes"


def test_a_repository_with_no_or_several_banks_asks_for_a_name(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE})
    with pytest.raises(HubError, match="has no bank"):
        open_hub_bank(REF)
    hub.add(ID, {"a.randes": b"x", "b.randes": b"x"})
    with pytest.raises(HubError, match=r"has several banks \(a.randes, b.randes\); name one"):
        open_hub_bank(REF)
    assert open_hub_bank(HubRef(ID, None, "b.randes")).weights == ("b.randes",)


def test_a_checkpoint_is_not_taken_for_a_bank(hub: HubServer) -> None:
    hub.add(ID, {"x.randes": encode_header([], {}) + b""})
    with pytest.raises(CheckpointError, match="a checkpoint, not a bank"):
        open_remote_bank(REF)


# The environment


def test_the_environment_reaches_the_client_of_a_new_process(
    hub: HubServer, tmp_path: Path
) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    script = (
        "from randes_cli.files.hub import fetch, open_hub; "
        "from randes_cli.files.hub_ref import HubRef; "
        f"print(fetch(open_hub(HubRef('{ID}'))).source)"
    )
    settings = {**os.environ, **hub.environment(tmp_path / "other"), "HF_TOKEN": "hf_mine"}
    for offline in ("0", "1"):
        hub.forget()
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**settings, "HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{ID}@{commit}\n"
        assert bool(hub.requests) == (offline == "0")
        assert {r.token for r in hub.requests if "/cdn/" not in r.path} <= {"hf_mine"}


def test_nothing_of_the_client_is_imported_to_read_a_name() -> None:
    script = (
        "import sys; from randes_cli.files.hub import open_hub; "
        "from randes_cli.ops.push import push; "
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
