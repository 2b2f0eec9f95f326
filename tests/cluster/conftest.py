"""A Ray cluster of several nodes on this machine, and a family of checkpoints that they share."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from randes_cli.specs import PackOptions, RunOptions
from tests import azure_server as azures
from tests import google_server as googles
from tests import store_server as stores
from tests.azure_server import Azure
from tests.google_server import Google
from tests.life.family import family_files, folder
from tests.life.models import options
from tests.store_server import Store

__all__ = ["family_files", "folder"]

#: One thread, and one worker of a cluster.
RAY = RunOptions(threads=1, engine="ray")
#: Bytes of a node's store of objects: results are small.
_STORE = 80 * 2**20


@pytest.fixture(scope="session")
def environment_there(
    store_server: Store, google_server: Google, azure_server: Azure
) -> dict[str, str]:
    """Workers find the tests' stores, and credentials, in their environment."""
    found = stores.environment(store_server) | googles.environment(google_server)
    return {**found, **azures.environment(azure_server), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def _starting(environment: dict[str, str]) -> Iterator[None]:
    """Machines that are started here have it; this process keeps its own, and its signals."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def cluster(environment_there: dict[str, str]) -> Iterator[Any]:
    """A head that works, and one more node; tests may add some and take them away."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 1,
        "object_store_memory": _STORE,
        # What nobody looks at: these are programs of their own.
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        # A machine that is busy with other tests is not dead; one that is gone is seen soon.
        "_system_config": {"health_check_timeout_ms": 60_000, "health_check_period_ms": 500},
    }
    with _starting(environment_there):
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1, object_store_memory=_STORE, include_log_monitor=False)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def node(cluster: Any, environment_there: dict[str, str]) -> Iterator[Any]:
    """One more, which a test may take away."""
    yield from _one_more(cluster, 1, environment_there)


@pytest.fixture(scope="module")
def large_node(cluster: Any, environment_there: dict[str, str]) -> Iterator[Any]:
    """One more, the only one with room for a worker of two threads."""
    yield from _one_more(cluster, 2, environment_there)


def _one_more(cluster: Any, processors: int, environment: dict[str, str]) -> Iterator[Any]:
    ray: Any = pytest.importorskip("ray")
    with _starting(environment):
        made = cluster.add_node(
            num_cpus=processors, object_store_memory=_STORE, include_log_monitor=False
        )
    yield made
    if made in cluster.worker_nodes:
        cluster.remove_node(made)
    while sum(one["Alive"] for one in ray.nodes()) > 2:  # others count the workers
        time.sleep(0.01)


def in_shards(size: int | None = 20_000, **more: object) -> PackOptions:
    """Options of a bank in shards."""
    return replace(options(), max_shard_size=size, **more)  # type: ignore[arg-type]
