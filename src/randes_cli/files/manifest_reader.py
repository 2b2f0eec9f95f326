"""Reading a manifest: every field checked, then what no single field shows.

An error names the field (``tasks[2].seed``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from math import isfinite, prod

from randes_cli.core.grid import EXPONENT_RANGE, LIMIT
from randes_cli.core.levels import SEAL_BITS
from randes_cli.errors import BankDamaged, NewerFormat, UsageError
from randes_cli.files.folders import SUFFIXES
from randes_cli.files.header import parse_json
from randes_cli.files.json_fields import (
    Fields,
    as_dtype,
    as_line,
    as_name_pair,
    as_pair,
    as_shape,
    as_text,
    as_typed_shape,
)
from randes_cli.files.manifest import SEAL_LAYOUT, BaseRecord, Manifest, SealRecord, TaskRecord
from randes_cli.files.manifest_checks import check_conversions, check_whole
from randes_cli.files.side_files import MOST_LISTED, is_safe_name, is_side_file
from randes_cli.specs import (
    FORMAT_NAME,
    FORMAT_VERSION,
    BaseStorage,
    Rest,
    Shuffle,
    Signs,
    TensorInfo,
    Transform,
    check_task_name,
)

#: Required features that this version knows; a bank that names another is refused.
FEATURES = frozenset({"superposition", "sealed"})
_KNOWN = frozenset(
    [
        "format",
        "version",
        "features",
        "transform",
        "bits",
        "seed",
        "capacity",
        "next_index",
        "groups",
        "base",
        "tasks",
        "forgotten",
        "steps",
        "widths",
        "stats",
        "sealed",
        "tuning",
    ]
)


def decode(data: bytes) -> Manifest:
    """Read and check a manifest. Raises BankDamaged naming the field, or NewerFormat."""
    try:
        fields = Fields(parse_json(data), "")
    except ValueError as error:
        raise BankDamaged(f"manifest: {error}") from None
    features = _check_version(fields)
    base = _parse_base(fields.fields("base"))
    named = {tensor.name: tensor for tensor in base.tensors}
    tasks = tuple(
        _parse_task(value, f"tasks[{position}]", named)
        for position, value in enumerate(fields.get("tasks", list))
    )
    stats = fields.fields("stats")
    made = Manifest(
        transform=_parse_transform(fields.fields("transform"), named),
        bits=fields.count("bits", 16),
        seed=fields.count("seed"),
        capacity=fields.count("capacity", 2**31, 1),
        next_index=fields.count("next_index", 2**31),
        base=base,
        tasks=tasks,
        steps=fields.map("steps", _exponent),
        widths=fields.map("widths", _width),
        groups=fields.count("groups", 2**20, 1),
        forgotten=tuple(fields.list("forgotten", as_pair)),
        cells=tuple(stats.list("cells", _cell)),
        estimated=frozenset(stats.list("estimated", as_pair)),
        features=features,
        sealed=_parse_sealed(fields, fields.count("groups", 2**20, 1)),
        tuning=fields.map("tuning", _curve) if "tuning" in fields.value else {},
        extra={key: value for key, value in fields.value.items() if key not in _KNOWN},
    )
    check_whole(fields, made)
    return made


def _check_version(fields: Fields) -> tuple[str, ...]:
    if fields.get("format", str) != FORMAT_NAME:
        raise fields.fail("format", f"is not {FORMAT_NAME}")
    version = fields.count("version")
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"manifest: version {version} is newer than {FORMAT_VERSION}; upgrade randes"
        )
    features = tuple(fields.list("features", as_text))
    unknown = sorted(set(features) - FEATURES)
    if unknown:
        raise NewerFormat(
            f"manifest: requires {unknown[0][:100]!a}, which this version lacks; upgrade randes"
        )
    return features


def _parse_transform(fields: Fields, base: Mapping[str, TensorInfo]) -> Transform:
    """The transform; a pattern in ``targets`` is only shown, ``matched`` is what counts."""
    targets = fields.line("targets")
    matched = None if targets == "all" else frozenset(fields.list("matched", as_text))
    unknown = next((name for name in matched or () if name not in base), None)
    if unknown is not None:
        raise fields.fail("matched", f"names {unknown[:100]!a}, which the base lacks")
    return Transform(
        shuffle=fields.choice("shuffle", Shuffle),
        signs=fields.choice("signs", Signs),
        targets=targets,
        every=fields.count("every", least=1),
        rest=fields.choice("rest", Rest),
        matched=matched,
    )


def _parse_base(fields: Fields) -> BaseRecord:
    return BaseRecord(
        source=fields.line("source"),
        fingerprint=fields.line("fingerprint"),
        storage=fields.choice("storage", BaseStorage),
        metadata=fields.map("metadata", as_text),
        tensors=tuple(_tensors(fields.map("tensors", as_typed_shape)).values()),
        files=_files(fields),
        layout=_layout(fields),
        left_out=_left_out(fields),
        pickle=_pickle(fields),
    )


def _parse_task(value: object, path: str, base: Mapping[str, TensorInfo]) -> TaskRecord:
    fields = Fields(value, path)
    name = fields.get("name", str)
    try:
        check_task_name(name)
    except UsageError as error:
        raise fields.fail("name", f"is refused: {error}") from None
    unchanged = frozenset(fields.list("unchanged", as_text))
    missing = frozenset(fields.list("missing", as_text))
    shapes = fields.map("shapes", as_shape)
    dtypes = fields.map("dtypes", as_dtype)
    _check_names(
        fields,
        base,
        {"unchanged": unchanged, "missing": missing, "shapes": shapes, "dtypes": dtypes},
    )
    _check_shapes(fields, base, shapes)
    coefficient, dtype = _coefficient(fields), _dtype(fields)
    made = TaskRecord(
        name=name,
        index=fields.count("index", 2**31),
        seed=fields.count("seed", 2**64),
        group=fields.count("group", 2**20),
        source=fields.line("source"),
        fingerprint=fields.line("fingerprint"),
        metadata=fields.map("metadata", as_text),
        dtype=dtype,
        unchanged=unchanged,
        missing=missing,
        own=_tensors(fields.map("own", as_typed_shape)),
        shapes=shapes,
        dtypes=dtypes,
        coefficient=coefficient,
        prefix=_prefix(fields),
        unprefixed=(
            frozenset(fields.list("unprefixed", as_text))
            if "unprefixed" in fields.value
            else frozenset()
        ),
        layout=_layout(fields),
        files=_files(fields),
        left_out=_left_out(fields),
        pickle=_pickle(fields),
    )
    check_conversions(fields, made, base)
    return made


def _check_names(
    fields: Fields, base: Collection[str], found: Mapping[str, Collection[str]]
) -> None:
    for key, names in found.items():
        unknown = next((n for n in names if n not in base), None)
        if unknown is not None:
            raise fields.fail(key, f"names {unknown[:100]!a}, which the base lacks")


def _check_shapes(
    fields: Fields, base: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    for tensor, shape in shapes.items():
        if len(shape) < 2 or shape[1:] != base[tensor].shape[1:] or prod(shape) >= 2**60:
            raise fields.fail(f"shapes[{tensor[:100]!a}]", "does not extend the base's shape")


def _coefficient(fields: Fields) -> float | None:
    if "coefficient" not in fields.value:
        return None
    found = fields.get("coefficient", float)
    if not (isfinite(found) and abs(found) <= 1e6):
        raise fields.fail("coefficient", "is out of range")
    return found


def _dtype(fields: Fields) -> str | None:
    if "dtype" not in fields.value:
        return None
    found = as_dtype(fields.value["dtype"])
    if found is None:
        raise fields.fail("dtype", "is not a dtype")
    return found


def _prefix(fields: Fields) -> tuple[str, str]:
    found = as_name_pair(fields.value.get("prefix", ["", ""]))
    if found is None:
        raise fields.fail("prefix", "is not a pair of names' beginnings")
    return found


def _layout(fields: Fields) -> dict[str, str]:
    """Where components lie in a folder: ``unet`` in ``unet/….safetensors``, no further."""
    found = fields.map("layout", as_text) if "layout" in fields.value else {}
    for component, target in found.items():
        folder, slash, file = target.rpartition("/")
        safe = is_safe_name(target) and file.endswith(SUFFIXES)
        if not safe or folder != component or bool(slash) != bool(component):
            raise fields.fail(f"layout[{component[:100]!a}]", "is not a file in its folder")
    return found


def _left_out(fields: Fields) -> dict[str, str]:
    """Files that stayed behind: lines for people, not boundless."""
    found = fields.map("left_out", as_line) if "left_out" in fields.value else {}
    if len(found) > MOST_LISTED + 1 or any(as_line(name) is None for name in found):
        raise fields.fail("left_out", "is not a list of files")
    return found


def _pickle(fields: Fields) -> str | None:
    return fields.line("pickle") if "pickle" in fields.value else None


def _files(fields: Fields) -> dict[str, str]:
    """Side files of a record: safe names, content digests."""
    found = fields.map("files", _content) if "files" in fields.value else {}
    for name in found:
        if not is_side_file(name):
            raise fields.fail(f"files[{name[:100]!a}]", "is not the name of a side file")
    return found


def _tensors(typed: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, dtype, shape) for name, (dtype, shape) in typed.items()}


def _parse_sealed(fields: Fields, groups: int) -> dict[int, SealRecord]:
    if "sealed" not in fields.value:
        return {}
    found = fields.map("sealed", _seal)
    for group in found:
        if not (group.isascii() and group.isdigit() and str(int(group)) == group):
            raise fields.fail(f"sealed[{group[:100]!a}]", "is not a group")
        if int(group) >= groups:
            raise fields.fail(f"sealed[{group[:100]!a}]", "is not a group of this bank")
    return {int(group): seal for group, seal in found.items()}


def _seal(value: object) -> SealRecord | None:
    if not isinstance(value, dict) or value.get("bits") not in SEAL_BITS:
        return None
    if type(value["bits"]) is not int or value.get("layout") != SEAL_LAYOUT:
        return None
    return SealRecord(value["bits"])


def _exponent(value: object) -> int | None:
    low, high = EXPONENT_RANGE
    return value if type(value) is int and low <= value <= high else None


def _width(value: object) -> int | None:
    return value if type(value) is int and value in LIMIT else None


def _cell(value: object) -> tuple[str, tuple[str, ...]] | None:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        return None
    if not isinstance(value[1], list) or not all(isinstance(name, str) for name in value[1]):
        return None
    return value[0], tuple(value[1])


def _curve(value: object) -> tuple[tuple[float, float], ...] | None:
    if not isinstance(value, list):
        return None
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        if not all(type(number) in (int, float) and isfinite(number) for number in pair):
            return None
    return tuple((float(pair[0]), float(pair[1])) for pair in value)


def _content(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) else None
