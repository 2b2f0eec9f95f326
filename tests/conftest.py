"""Fixtures that all tests share; the helpers behind them are in `checkpoints.py`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.checkpoints import Packer

#: Servers of tests (one of each in a process, for clients are kept that know its address), and
#: the browser.
pytest_plugins = [
    "tests.azure_server",
    "tests.browser",
    "tests.google_server",
    "tests.hub_server",
    "tests.store_server",
    "tests.web_server",
]
# Triton and torch ask when they are imported, which is after this.
os.environ["TRITON_INTERPRET"] = "1"
# Small models are no work for two threads, which wait for each other by spinning: nothing where a
# core is free, three times the time where none is.
os.environ["OMP_NUM_THREADS"] = "1"
# Hundreds of commands, each of them new, would compile once more what they import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A busy machine is no failure, and no run draws other examples than the one before.
settings.register_profile("randes", deadline=None, derandomize=True)
settings.load_profile("randes")
# A shell's background jobs ignore the one, what `nohup` starts the other, and so would every
# command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One: the servers of tests have none, and each new client would read those of the system."""
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(certifi.contents().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One more than cores: many tests wait, for a process to end or a server to answer."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    from randes_cli.workers import thread_count

    return thread_count(0) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Random weights are the same whatever ran before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a test, or what it calls, sets for its process goes with it."""
    folder, before = Path.cwd(), dict(os.environ)
    yield
    os.chdir(folder)
    if _lasting(os.environ) != _lasting(before):
        os.environ.clear()
        os.environ.update(before)


def _lasting(found: Mapping[str, str]) -> dict[str, str]:
    """But for what pytest says of each phase of a test."""
    return {name: value for name, value in found.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture
def packer(tmp_path: Path) -> Packer:
    """Packs state dicts in a folder of its own."""
    from tests.checkpoints import Packer

    return Packer(tmp_path)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork first: a process that has talked to Ray had better not.

    Clusters come where the second of two workers begins: they wait a lot, while the first computes,
    and they are not dealt out, so that one process starts a cluster. No test asks for any of it.
    """
    folders = {item: Path(item.path).parent.name for item in items}
    forks = [item for item in items if folders[item] in ("faults", "hostile", "shards", "torture")]
    clusters = [item for item in items if folders[item] == "cluster"]
    others = [item for item in items if item not in {*forks, *clusters}]
    first = max(0, len(items) // 2 - len(forks))
    items[:] = [*forks, *others[:first], *clusters, *others[first:]]
