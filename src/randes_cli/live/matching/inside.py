"""Names of a bank's tensors inside the component that a model is."""

from __future__ import annotations

from collections.abc import Sequence

from randes_cli.api import Bank
from randes_cli.errors import MismatchError
from randes_cli.live.lazy import Whole
from randes_cli.read.places import by_component
from randes_cli.specs import TensorInfo


def shapes_inside(
    bank: Bank, wholes: Sequence[Whole], component: str | None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By name inside the component: the bank's name, and the shape."""
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    for whole in reversed(wholes):
        task = whole.retrieval.task
        named = by_component(whole.retrieval, task.layout or {"": ""})
        filled = {key: found for key, found in named.items() if found}
        if component is None and len(filled) > 1:
            raise MismatchError(
                f"{bank.file.path}: has the components {', '.join(sorted(filled))}; say component="
            )
        chosen = filled.get(component, {}) if component else next(iter(filled.values()), {})
        lent = set(whole.lent.values())
        for name, inside in chosen.items():
            if name not in lent:
                made.setdefault(_inner_name(name, inside, whole), (name, inside.shape))
    return made


def _inner_name(name: str, inside: TensorInfo, whole: Whole) -> str:
    """The name that the base has for it in its file, which the module is built by."""
    theirs, ours = whole.retrieval.task.prefix
    if name == inside.name or inside.name.startswith(name):
        return inside.name
    if theirs != ours and inside.name.startswith(theirs):
        return ours + inside.name[len(theirs) :]
    return inside.name
