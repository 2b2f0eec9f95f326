"""Names of a bank's tensors inside the component that a model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from randes_cli.api import Bank
from randes_cli.errors import MismatchError, MissingError
from randes_cli.live.lazy import Whole
from randes_cli.read.places import by_component
from randes_cli.specs import TensorInfo


def shapes_inside(
    bank: Bank, wholes: Sequence[Whole], component: str | None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By name inside the component: the bank's name, and the shape."""
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    there: set[str] = set()
    for whole in reversed(wholes):
        filled = filled_components(whole)
        there |= filled.keys()
        if component is None and len(filled) > 1:
            raise MismatchError(
                f"{bank.file.path}: has the components {', '.join(sorted(filled))}; say component="
            )
        lent = set(whole.lent.values())
        for name, inside in _chosen(filled, component).items():
            if name not in lent:
                made.setdefault(_inner_name(name, inside, whole), (name, inside.shape))
    if component is not None and not made:
        known = ", ".join(map(repr, sorted(there)))
        raise MissingError(f"{bank.file.path}: has no component {component!r}, but {known}")
    return made


def filled_components(whole: Whole) -> dict[str, dict[str, TensorInfo]]:
    """By component, those with tensors alone: these, by the bank's names."""
    named = by_component(whole.retrieval, whole.retrieval.task.layout or {"": ""})
    return {key: found for key, found in named.items() if found}


def _chosen(
    filled: Mapping[str, dict[str, TensorInfo]], component: str | None
) -> dict[str, TensorInfo]:
    """What the model is; where there is one component alone, it need not be named."""
    if component is None or (component == "" and len(filled) == 1):
        return next(iter(filled.values()), {})
    return filled.get(component, {})


class PartsWarning(UserWarning):
    """Tasks have values of their own in other components than the one that is attached."""


def other_parts(wholes: Sequence[Whole], component: str | None) -> list[str]:
    """Components beside a model's in which tasks differ from the base; the last is the base's."""
    made: set[str] = set()
    for whole in wholes[:-1]:
        kept, same = whole.retrieval.kept_name, whole.retrieval.task.unchanged
        filled = filled_components(whole)
        others = filled.keys() - {component} if len(filled) > 1 else ()
        made |= {one for one in others if any(kept(name) not in same for name in filled[one])}
    return sorted(made)


def _inner_name(name: str, inside: TensorInfo, whole: Whole) -> str:
    """The name that the base has for it in its file, which the module is built by."""
    theirs, ours = whole.retrieval.task.prefix
    if name == inside.name or inside.name.startswith(name):
        return inside.name
    if theirs != ours and inside.name.startswith(theirs):
        return ours + inside.name[len(theirs) :]
    return inside.name
