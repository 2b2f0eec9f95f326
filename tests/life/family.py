"""The family of checkpoints in a folder of each test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.life.models import write_family


@pytest.fixture(scope="session")
def family_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def folder(family_files: Path, tmp_path: Path) -> Path:
    """A folder with the family in it."""
    for path in family_files.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    return tmp_path
