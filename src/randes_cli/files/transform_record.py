"""What a manifest records of the transform, as JSON."""

from __future__ import annotations

from typing import Any

from randes_cli.files.json_fields import Fields
from randes_cli.files.record_fields import known_names
from randes_cli.specs import Rest, Shuffle, Signs, Tensors, Transform


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
