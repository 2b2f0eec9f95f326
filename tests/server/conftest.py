"""One bank and one server for the tests that ask and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from randes_cli.server.service import Service
from tests.cli.conftest import randes  # noqa: F401
from tests.server.service import Alone, client, serving, text_bank


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight text generators and their base."""
    return text_bank(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def alone(bank: Path) -> Alone:
    return Alone(bank)


@pytest.fixture(scope="session")
def service(bank: Path) -> Iterator[Service]:
    with serving(bank) as made:
        yield made


@pytest.fixture(scope="session")
def asker(service: Service) -> openai.OpenAI:
    return client(service)
