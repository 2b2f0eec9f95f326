"""Models that tests put on the Hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save

from randes_cli.errors import RandesError
from randes_cli.files.hub.ref import HubRef

if TYPE_CHECKING:
    from tests.hub_server import HubServer


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
