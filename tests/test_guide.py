"""What docs/guide.md shows is what its commands make."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import script

DOCS = Path(__file__).parents[1] / "docs"


def maker() -> ModuleType:
    return script("docs/make_guide.py")


def words(picture: bytes) -> list[str]:
    """The texts of a picture; matplotlib draws them as outlines and keeps them as comments."""
    return re.findall(r"<!-- (.*?) -->", picture.decode())


def version(picture: bytes) -> str:
    """The matplotlib that drew a picture."""
    return str(re.findall(r"<dc:title>(Matplotlib v[^,]+)", picture.decode())[0])


def test_outputs_and_pictures_are_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    text, pictures = maker().make(tmp_path)
    assert (DOCS / "guide.md").read_text("utf-8") == text, "run: make docs"
    assert set(pictures) == {f"images/{path.name}" for path in (DOCS / "images").glob("*.svg")}
    for name, fresh in pictures.items():
        kept = (DOCS / name).read_bytes()
        assert f"({name})" in text
        assert words(kept) == words(fresh), f"{name}: run: make docs"
        if version(kept) == version(fresh):  # another matplotlib places a line elsewhere
            assert kept == fresh, f"{name}: run: make docs"


def test_every_command_of_the_guide_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from randes_cli.cli.app import COMMANDS

    text = (DOCS / "guide.md").read_text("utf-8")
    used = set(re.findall(r"^(?:\$ )?randes ([a-z]+)", text, re.M)) | set(
        re.findall(r"`randes ([a-z]+)", text)
    )
    assert used <= set(COMMANDS)
    assert {"pack", "inspect", "plot", "report", "diff", "unpack", "verify"} <= used
