"""One bank of each state, made once: every fault starts from a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from tests.life.models import ONE, make_bank, put, sums, take, write_family


@dataclass(frozen=True)
class Scene:
    """A folder with a family, a job on its bank, and the bank's bytes before and after it.

    `before` is None where the job makes the bank.
    """

    folder: Path
    job: Callable[[], object]
    before: bytes | None
    after: bytes

    @property
    def bank(self) -> Path:
        return self.folder / "bank.randes"

    def reset(self) -> None:
        """Set the folder back to what it was before the job."""
        for path in [*self.folder.glob(".bank.randes*"), self.bank]:
            path.unlink(missing_ok=True)
        if self.before is not None:
            self.bank.write_bytes(self.before)

    def litter(self) -> list[str]:
        """Files that should not be there."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("."))

    def is_new(self) -> bool:
        """Whether the bank is the new one, but for statistics that had to be estimated."""
        if self.state() == self.after:
            return True
        with BankFile(self.bank) as bank:
            kept = bank.manifest.tasks, sums(self.bank), verify(bank, ONE).sound
        self.bank.write_bytes(self.after)
        with BankFile(self.bank) as bank:
            return kept == (bank.manifest.tasks, sums(self.bank), True)

    def state(self) -> bytes | None:
        return self.bank.read_bytes() if self.bank.exists() else None


def make_scene(name: str, folder: Path) -> Scene:
    """A job by name, in a folder with the family."""
    job, before = _jobs(folder)[name], None
    bank = folder / "bank.randes"
    if name != "pack":
        before = make_bank(folder, ("whole", "single")).read_bytes()
    job()
    made = Scene(folder, job, before, bank.read_bytes())
    made.reset()
    return made


def _jobs(folder: Path) -> dict[str, Callable[[], object]]:
    bank = folder / "bank.randes"
    return {
        "pack": lambda: make_bank(folder, ("whole", "single")),
        "add": lambda: put(bank, "half"),
        "remove": lambda: take(bank, "whole"),
    }


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("faults"))


@pytest.fixture(params=["pack", "add", "remove"])
def scene(request: pytest.FixtureRequest, family_folder: Path, tmp_path: Path) -> Scene:
    """Each of the three jobs that write a bank."""
    for path in family_folder.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    return make_scene(request.param, tmp_path)
