"""Models on the Hub, through the real client and a server on 127.0.0.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save

from randes_cli.errors import CheckpointError, RandesError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.hub.ref import HubRef
from randes_cli.files.hub.repository import fetch, open_hub, remote_checkpoint
from randes_cli.fit import fit_task
from randes_cli.specs import TensorInfo
from tests.files.hub_models import CONFIG, ID, REF, WHOLE, sharded, weights

if TYPE_CHECKING:
    from tests.hub_server import HubServer

# Looking and refusing


def test_headers_are_read_by_range_and_the_data_stay(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE, "config.json": CONFIG, "logo.png": b"x"})
    model = open_hub(REF)
    with remote_checkpoint(model) as found:
        assert found.tensors == {n: TensorInfo(n, "F32", (1000, 64)) for n in "ab"}
    assert model.found.weights == ("model.safetensors",)
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
    assert model.source == f"{ID}@{commit}"
    with open_checkpoint(str(fetched)) as found:
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
    assert model.source == f"{ID}@{other}"


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
    assert list(open_hub(HubRef(ID, None, path)).found.weights) == chosen


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
