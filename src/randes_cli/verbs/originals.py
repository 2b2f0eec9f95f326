"""Checkpoints that callers name, as text."""

from __future__ import annotations

from collections.abc import Mapping

from randes_cli.limits import StrPath, as_source

#: Checkpoints by task.
Originals = Mapping[str, StrPath]


def pairs(originals: Originals | None) -> list[tuple[str, str]]:
    return [(name, as_source(source)) for name, source in (originals or {}).items()]


def text_of(path: StrPath | None) -> str | None:
    return None if path is None else as_source(path)
