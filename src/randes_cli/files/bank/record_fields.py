"""Fields that several records of a manifest have, read and checked against the base's tensors."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from randes_cli.core.columns import typed_table
from randes_cli.files.bank.json_fields import (
    Fields,
    as_cell,
    as_cells,
    as_line,
    as_text,
    as_typed_shape,
    as_typed_shapes,
)
from randes_cli.files.kinds import SUFFIXES
from randes_cli.files.side_files import FOLDERS, MOST_FILES, MOST_LISTED, is_safe_name, is_side_file
from randes_cli.limits import is_name, strange_name
from randes_cli.specs import Rest, Shuffle, Signs, Table, Tensors, Transform


def known_names(fields: Fields, key: str, base: Tensors) -> list[str]:
    return check_known(fields, key, fields.list(key, as_text), base)


def check_known(fields: Fields, key: str, names: Collection[str], base: Tensors) -> list[str]:
    unknown = next((name for name in names if name not in base), None)
    if unknown is not None:
        raise fields.fail(key, f"names {unknown[:100]!r}, which the base lacks")
    return list(names)


def read_layout(fields: Fields) -> dict[str, str]:
    """Where components lie in a folder: ``unet`` in ``unet/….safetensors``, no further."""
    found = fields.optional_map("layout", as_text)
    for component, target in found.items():
        folder, _, file = target.rpartition("/")
        if folder != component or not (is_safe_name(target) and file.endswith(SUFFIXES)):
            raise fields.fail(f"layout[{component[:100]!r}]", "is not a file in its folder")
    return found


def read_left_out(fields: Fields) -> dict[str, str]:
    """Files that stayed behind: lines for people, not boundless."""
    found = fields.optional_map("left_out", as_line)
    if len(found) > MOST_LISTED + 1 or any(as_line(name) is None for name in found):
        raise fields.fail("left_out", "is not a list of files")
    return found


def read_files(fields: Fields) -> dict[str, str]:
    """Side files of a record: safe names, content digests."""
    found = fields.optional_map("files", _content)
    if len(found) > FOLDERS * MOST_FILES:
        raise fields.fail("files", "has more names than a model's folder may have")
    for name in found:
        if not is_side_file(name):
            raise fields.fail(f"files[{name[:100]!r}]", "is not the name of a side file")
    return found


def _content(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) else None


def read_tensors(fields: Fields, key: str) -> Table:
    found = fields.get(key, dict)
    kinds = as_typed_shapes(found.values()) or fields.map(key, as_typed_shape).values()
    name = strange_name(found)
    if name is not None:
        raise fields.fail(f"{key}[{name[:100]!r}]", "is too long or has control characters")
    return typed_table(found, list(kinds))


def read_cells(fields: Fields) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each pair of Gram matrices covers."""
    return as_cells(fields.get("cells", list)) or tuple(fields.list("cells", as_cell))


def read_ties(fields: Fields, kept: Tensors, held: Tensors) -> dict[str, str]:
    """Further names of `kept` tensors; none of them is `held` already."""
    ties = fields.optional_map("ties", as_text)
    for name, leader in ties.items():
        if not is_name(name) or name in held:
            raise fields.fail(f"ties[{name[:100]!r}]", "is no further name")
        if leader not in kept:
            raise fields.fail("ties", f"names {leader[:100]!r}, which is not kept")
    return ties


def transform_json(transform: Transform) -> dict[str, Any]:
    made: dict[str, Any] = {
        "shuffle": transform.shuffle.value,
        "signs": transform.signs.value,
        "targets": transform.targets,
        "every": transform.every,
        "rest": transform.rest.value,
    }
    if transform.matched is not None:
        made["matched"] = sorted(transform.matched)
    if transform.exact:
        made["exact"] = sorted(transform.exact)
    return {**made, **transform.extra}


def seed_limit(version: int) -> str:
    """Which limit holds for seeds in a version of the format."""
    return "seed" if version > 1 else "seed of version 1"


def read_transform(fields: Fields, base: Tensors, version: int) -> Transform:
    """The transform; a pattern in ``targets`` is only shown, ``matched`` is what counts."""
    targets = fields.line("targets")
    matched = None if targets == "all" else frozenset(known_names(fields, "matched", base))
    signs = fields.choice("signs", Signs)
    if signs is Signs.two_sided and version < 2:
        raise fields.fail("signs", "is not of version 1")
    return Transform(
        shuffle=fields.choice("shuffle", Shuffle),
        signs=signs,
        targets=targets,
        every=fields.limited("every"),
        rest=fields.choice("rest", Rest),
        matched=matched,
        exact=frozenset(known_names(fields, "exact", base) if "exact" in fields.value else ()),
        any_digits=version < 2,
        extra=fields.rest(),
    )
