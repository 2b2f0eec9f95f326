"""How a task fits a base: what of it can be superposed, and how much they have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from randes_cli.core.columns import alike
from randes_cli.core.roles import exact_roles
from randes_cli.plan import superposable, tensor_bytes
from randes_cli.specs import FLOAT_DTYPES, TensorInfo, Tensors, once, table_bytes

#: A task that shares less of the base's bytes by name and shape does not belong to it, unless
#: as much of its own bytes, a head of other labels apart, has a counterpart (its head was removed,
#: say) and it covers at least the second share of the base, or has all its names.
LEAST_MATCH = 0.95
LEAST_PART = 0.25

_RESIZABLE = re.compile(
    r"embed|wte|wpe|lm_head|vocab|shared\.weight|output\.weight|predictions\.decoder",
    re.IGNORECASE,
)
#: Embeddings of labels, and the heads of detectors that are called so (DETR's `class_embed`): with
#: another number of them, a row is another label than the base's.
_OF_LABELS = re.compile(r"(class|label)[a-z]*_?embed|y_embed", re.IGNORECASE)


#: Weights and biases of a classifier, of an auxiliary one, too; what is more is no head.
_MOST_HEADS = 4

#: Numbers of rows, before and after.
Rows = tuple[int, int]


def resized(base: TensorInfo, task: TensorInfo, known: Collection[Rows] = ()) -> bool:
    """Whether two tensors are one embedding with more or fewer rows.

    Its name tells; or its rows, which are `known` to have become so many of an embedding.
    """
    return (
        len(base.shape) >= 2
        and base.shape[1:] == task.shape[1:]
        and base.shape[0] != task.shape[0]
        and min(base.elements, task.elements) > 0
        and ((base.shape[0], task.shape[0]) in known or bool(_RESIZABLE.search(base.name)))
        and not _OF_LABELS.search(base.name)
    )


def vocabularies(base: Tensors, task: Tensors) -> set[Rows]:
    """Rows of the embeddings that are resized, which their heads have, whatever they are called."""
    pairs = ((base[name], tensor) for name, tensor in task.items() if name in base)
    return {(one.shape[0], other.shape[0]) for one, other in pairs if resized(one, other)}


def _head_bytes(base: Tensors, task: Tensors, known: Collection[Rows]) -> int:
    """Bytes of the task's classifier, where it has another number of labels than the base's.

    Several heads (an auxiliary one, one for distillation) have the same labels.
    """
    pairs = ((base[name], tensor) for name, tensor in task.items() if name in base)
    heads = [
        (twin, tensor)
        for twin, tensor in pairs
        if twin.shape != tensor.shape
        and twin.shape[1:] == tensor.shape[1:]
        and not resized(twin, tensor, known)
    ]
    labels = {(twin.shape[:1], tensor.shape[:1]) for twin, tensor in heads}
    one = len(labels) == 1 and len(heads) <= _MOST_HEADS
    return tensor_bytes(tensor for _, tensor in heads) if one else 0


@dataclass(frozen=True, slots=True)
class TaskFit:
    """How a task's tensors meet a base's.

    Attributes:
        superposed: the task's tensors that enter superpositions, by name.
        exact: the others, by name, each with the reason why it is kept as it is.
        missing: the base's tensors that the task lacks.
        matched: share of the base's bytes that the task has by name and shape, 0 to 1.
        covered: share of the task's bytes that have such a counterpart, 0 to 1; a classifier's
            head with another number of labels does not count.
        unmatched: first names of the base and of the task without a counterpart.
    """

    superposed: Mapping[str, TensorInfo]
    exact: Mapping[str, str]
    missing: tuple[str, ...]
    matched: float
    covered: float
    unmatched: tuple[tuple[str, ...], tuple[str, ...]] = field(default=((), ()))


#: Why a tensor that has no such role is kept exactly.
ASKED = "as asked (--exact)"
#: Of a head of other labels, say: several tasks with such are told of in one line.
RESHAPED = "of another shape than the base's"
#: Of a task that is added: its bank keeps the tensor so, by --exact or for the base's infinities.
AS_BANK = "as the bank keeps it"


def _other(tensor: TensorInfo, twin: TensorInfo) -> str:
    if not superposable(tensor):
        return "integer or scalar" if tensor.dtype != "C64" else "complex numbers"
    return "outside the targets" if superposable(twin) else f"the base's are {twin.dtype}"


def _has_bytes(tensors: Mapping[str, TensorInfo]) -> bool:
    return table_bytes(tensors) > 0


def fit_task(
    base: Mapping[str, TensorInfo],
    task: Mapping[str, TensorInfo],
    superposed_names: Iterable[str],
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> TaskFit:
    """Sort a task's tensors by what becomes of them; `superposed_names` are the units' names.

    `reasons` say why tensors are kept exactly of which names and shapes tell nothing.
    """
    eligible, roles = set(superposed_names), once(exact_roles, task)
    if alike(base, task):  # as of fine-tunes with their base's very header
        left = (tensor for name, tensor in task.items() if name not in eligible)
        why = {t.name: roles.get(t.name) or reasons.get(t.name) or _other(t, t) for t in left}
        share = float(once(_has_bytes, base))
        whole = {name: t for name, t in task.items() if name not in why} if why else task
        return TaskFit(whole, why, (), share, share)
    superposed, exact = {}, {}
    matched, covered = 0, 0
    known = vocabularies(base, task)
    for name, tensor in task.items():
        twin = base.get(name)
        same = twin is not None and twin.shape == tensor.shape
        grown = twin is not None and resized(twin, tensor, known)
        if twin is not None and (same or grown):
            share = min(prod(twin.shape[:1]), prod(tensor.shape[:1]))
            matched += share * (twin.nbytes // max(1, prod(twin.shape[:1])))
            covered += share * (tensor.nbytes // max(1, prod(tensor.shape[:1])))
        if twin is None:
            exact[name] = reasons.get(name) or "not in the base"
        elif not (same or grown):
            exact[name] = RESHAPED
        elif name in eligible and tensor.dtype in FLOAT_DTYPES:
            superposed[name] = tensor
        else:
            exact[name] = roles.get(name) or reasons.get(name) or _other(tensor, twin)
    missing = tuple(name for name in base if name not in task)
    extra = tuple(name for name in task if name not in base)
    return TaskFit(
        superposed if exact else task,
        exact,
        missing,
        matched / max(1, tensor_bytes(base.values())),
        covered / max(1, tensor_bytes(task.values()) - _head_bytes(base, task, known)),
        (missing[:3], extra[:3]),
    )
