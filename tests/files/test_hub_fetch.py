"""What is fetched from the Hub, what the cache serves, and what is said offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from randes_cli.errors import CheckpointError, HubError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.hub.ref import HubRef
from randes_cli.files.hub.repository import fetch, open_hub, remote_checkpoint
from randes_cli.specs import OpenOptions, TensorInfo
from tests.files.hub_models import CONFIG, ID, REF, WHOLE, said, sharded, weights

if TYPE_CHECKING:
    from tests.hub_server import HubServer

# Fetching and the cache


def test_only_the_weights_and_their_side_files_are_fetched(hub: HubServer) -> None:
    wanted = {**sharded(), "tokenizer.json": b"{}", "README.md": b"x"}
    others = {"training_args.bin": WHOLE, "onnx/model.onnx": WHOLE, "model.py": b"1/0"}
    hub.add(ID, {**wanted, **others})
    model = open_hub(REF)
    assert set(model.found.side_files) == {"config.json", "tokenizer.json", "README.md"}
    assert set(model.found.left_out) == set(others)
    path = fetch(model)
    assert {found.name for found in path.iterdir()} == set(wanted)
    assert model.bytes_to_download() == 0
    with open_checkpoint(str(path)) as found:
        assert set(found.side_files) == {"config.json", "tokenizer.json", "README.md"}


def test_options_decide_what_is_fetched(hub: HubServer) -> None:
    hub.add(ID, {"model.safetensors": WHOLE, "tokenizer.json": b"{}", "model.py": b"1/0"})
    bare = open_hub(REF, OpenOptions(safetensors_only=True))
    code = open_hub(REF, OpenOptions(trust_remote_code_files=True))
    assert bare.found.side_files == ()
    assert set(code.found.side_files) == {"tokenizer.json", "model.py"}


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
    with remote_checkpoint(model) as remote, open_checkpoint(str(fetch(model))) as local:
        assert set(remote.tensors) == {"unet/a", "vae/b"}
        assert remote.tensors == local.tensors
        assert remote.layout == local.layout
    snapshot = fetch(model)
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
    online = open_hub(REF)
    path = fetch(online)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.forget()
    for revision in (None, "main", online.source.partition("@")[2]):
        model = open_hub(HubRef(ID, revision))
        assert model.offline
        with remote_checkpoint(model) as found:
            assert set(found.tensors) == {"a", "b"}
        assert fetch(model) == path
        assert model.source == online.source
    assert hub.requests == []


def test_offline_and_not_cached_has_its_own_sentence(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add(ID, {"model.safetensors": WHOLE, "config.json": CONFIG})
    fetch(open_hub(REF))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    end = "neither here nor in the cache, and HF_HUB_OFFLINE is set; download it once while online"
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
    with pytest.raises(HubError, match="nor in the cache"):
        open_hub(REF)


# The environment


def test_the_environment_reaches_the_client_of_a_new_process(
    hub: HubServer, tmp_path: Path
) -> None:
    commit = hub.add(ID, {"model.safetensors": WHOLE})
    script = (
        "from randes_cli.files.hub.repository import fetch, open_hub; "
        "from randes_cli.files.hub.ref import HubRef; "
        f"model = open_hub(HubRef('{ID}')); fetch(model); print(model.source)"
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
