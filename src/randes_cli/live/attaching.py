"""Reads a bank into the weights of a module, for all of its tasks at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from randes_cli.api import Bank
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.live.lazy import Whole
from randes_cli.live.matching.adapters import plain_places, plain_state, unwrapped
from randes_cli.live.matching.inside import shapes_inside
from randes_cli.live.matching.names import parameter_parts
from randes_cli.live.matching.unfit import refuse_packed
from randes_cli.live.parameters.mixed_parameter import Mixed
from randes_cli.live.weights.grouping import block_of
from randes_cli.live.weights.held import Held
from randes_cli.live.weights.parts import Part, Parts
from randes_cli.live.weights.weight import MOST_TABLE, Weight
from randes_cli.plan import seal_matrix
from randes_cli.specs import TensorInfo

#: Parameters whose rows stand for positions, and those that stand for distances.
_POSITIONAL = re.compile(r"position|pos_emb|\bwpe\b|relative|distance|dist_emb", re.IGNORECASE)
_RELATIVE = re.compile(r"relative|distance|dist_emb|\bpe_k\b|rel_attn", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter or buffer, and all the places of the module where it is (tied ones)."""

    tensor: torch.Tensor
    places: tuple[tuple[torch.nn.Module, str], ...]
    names: tuple[str, ...]


def holds(module: torch.nn.Module, attribute: str) -> torch.Tensor | None:
    """What a module has as a parameter or buffer."""
    store: Mapping[str, torch.Tensor | None] = (
        module._parameters if attribute in module._parameters else module._buffers
    )
    return store.get(attribute)


@dataclass(slots=True)
class Reading:
    """Everything that weights are made from.

    Attributes:
        wholes: each chosen task's retrieval; the last is the base's.
        dense: whether superpositions are held as matrices in the model's dtype.
        unsaved: patterns of parameters that a model makes itself and is saved without.
        lacking: (task, parameter) pairs that answer with the base's values.
    """

    bank: Bank
    tasks: tuple[str, ...]
    wholes: tuple[Whole, ...]
    parts: Mapping[str, Parts]
    dense: bool
    strict: bool
    unsaved: tuple[str, ...] = ()
    lacking: list[tuple[str, str]] = field(default_factory=list)
    held: dict[tuple[int, str], Held] = field(default_factory=dict)


def slots_of(module: torch.nn.Module) -> list[Slot]:
    """Parameters and persistent buffers, each once. Raises UsageError where tasks are attached."""
    module = unwrapped(module)
    state = plain_state(module)
    found: dict[int, tuple[torch.Tensor, list[tuple[torch.nn.Module, str]], list[str]]] = {}
    for name, layer, attribute, tensor in plain_places(module):
        if isinstance(tensor, Mixed):
            raise UsageError(f"{name}: the model has tasks attached; detach them first")
        if name in state:
            entry = found.setdefault(id(tensor), (tensor, [], []))
            entry[1].append((layer, attribute))
            entry[2].append(name)
    return [Slot(t, tuple(places), tuple(names)) for t, places, names in found.values()]


def start(
    module: torch.nn.Module,
    bank: Bank,
    tasks: Sequence[str],
    *,
    component: str | None,
    coefficient: float | None,
    dense: bool,
    strict: bool,
) -> Reading:
    """Open every task, and find which tensors each parameter is made of."""
    module = unwrapped(module)
    wholes = [Whole(bank.retrieval(task, coefficient=coefficient)) for task in [*tasks, None]]
    shapes = shapes_inside(bank, wholes, component)
    parts = parameter_parts(module, {inner: shape for inner, (_, shape) in shapes.items()})
    renamed = {
        name: tuple(replace(part, name=shapes[part.name][0]) for part in given)
        for name, given in parts.items()
    }
    refuse_packed(module, {inner: name for inner, (name, _) in shapes.items()}, renamed, wholes)
    unsaved = tuple(getattr(module, "_keys_to_ignore_on_load_missing", None) or ())
    return Reading(bank, tuple(tasks), tuple(wholes), renamed, dense, strict, unsaved)


def weights(reading: Reading, slots: Sequence[Slot]) -> Iterator[tuple[Slot, Weight | None]]:
    """Each slot filled with the base, and what the tasks make of it (None: nothing)."""
    for slot in slots:
        by_task = [parts_of(slot, whole, reading) for whole in reading.wholes]
        known = next((parts for parts in (by_task[-1], *by_task) if parts), None)
        if known is None:
            if reading.strict and not made_by_model(slot, reading):
                raise MissingError(
                    f"{reading.bank.file.path}: neither the base nor a task has a tensor for the "
                    f"model's {slot.names[0]!r} (strict=False leaves it as it is)"
                )
            yield slot, None
            continue
        if by_task[-1]:
            _fill(slot.tensor, by_task[-1], reading.wholes[-1])
        yield slot, _weight(slot, by_task, known, reading)


def parts_of(slot: Slot, whole: Whole, reading: Reading) -> Parts | None:
    """The tensors of one task that make up a slot: of tied names the first that it has."""
    for name in slot.names:
        parts = reading.parts.get(name, ())
        parts = tuple(replace(part, name=whole.called(part.name)) for part in parts)
        if parts and all(part.name in whole.retrieval.tensors for part in parts):
            return parts
    return None


def made_by_model(slot: Slot, reading: Reading) -> bool:
    """Whether a model is saved without a parameter, as Marian is without its sinusoids."""
    return any(re.search(each, name) for each in reading.unsaved for name in slot.names)


def _fill(tensor: torch.Tensor, parts: Parts, whole: Whole) -> None:
    with torch.no_grad():
        for part in parts:
            found = whole.read(part.name)
            if not part.place and part.shape(found.shape) != tensor.shape:
                raise MismatchError(
                    f"tensor {part.name!r} is {list(found.shape)}, the model's is "
                    f"{list(tensor.shape)}: build the model from the base's config"
                )
            part.keep(found.to(tensor.device, tensor.dtype), tensor)


def _weight(
    slot: Slot, by_task: Sequence[Parts | None], known: Parts, reading: Reading
) -> Weight | None:
    kinds = [_kind(parts, whole) for parts, whole in zip(by_task, reading.wholes, strict=True)]
    for task, parts in enumerate(by_task[:-1]):
        if parts is None and by_task[-1] is None and reading.strict:
            raise MissingError(
                f"{reading.bank.file.path}: neither task {reading.tasks[task]} nor the base has "
                f"a tensor for the model's {slot.names[0]!r} (strict=False: its rows answer NaN)"
            )
        if parts is None:
            reading.lacking.append((reading.tasks[task], slot.names[0]))
    if all(kind in ("base", "none") for kind in kinds[:-1]) and by_task[-1]:
        return None
    base = slot.tensor.detach()
    if _small(slot.tensor, len(kinds), kinds):
        weight = _table(slot, by_task, kinds, reading)
        return None if _all_alike(weight) else weight
    made = _plain(slot, None, [len(base)] * len(kinds), reading)
    chosen = [task for task, kind in enumerate(kinds) if kind in ("superposed", "resized")]
    retrievals = [whole.retrieval for whole in reading.wholes]
    base_ties = reading.bank.file.manifest.base.ties
    blocks = [
        block_of(
            replace(part, name=base_ties.get(part.name, part.name)),
            retrievals,
            chosen,
            base,
            reading.held,
            dense=reading.dense,
        )
        for part in known
    ]
    exact, extra, lengths = {}, {}, list(made.lengths)
    for task, (parts, kind) in enumerate(zip(by_task, kinds, strict=True)):
        if kind == "own" and parts:
            exact[task] = _assembled(slot, parts, reading.wholes[task])
            lengths[task] = len(exact[task])
        elif kind == "resized" and parts:
            whole = reading.wholes[task].read(parts[0].name)
            lengths[task] = min(len(whole), len(base))
            if len(whole) > len(base):
                extra[task] = whole[len(base) :].to(base.device, base.dtype)
    made.blocks = tuple(block for block in blocks if block.groups)
    made.exact, made.extra, made.lengths = exact, extra, lengths
    return made


def _positions(slot: Slot) -> tuple[bool, bool]:
    names = " ".join(slot.names)
    return bool(_POSITIONAL.search(names)), bool(_RELATIVE.search(names))


def _kind(parts: Parts | None, whole: Whole) -> str:
    """What a task has there: none, the base's, a superposed one (or resized), its own."""
    if parts is None:
        return "none"
    task = whole.retrieval.task
    names = [whole.retrieval.kept_name(part.name) for part in parts]
    if any(name in task.own for name in names) or not all(_divides(p, whole) for p in parts):
        return "own"
    if any(name in task.shapes for name in names):
        return "resized"
    return "base" if all(name in task.unchanged for name in names) else "superposed"


def _divides(part: Part, whole: Whole) -> bool:
    """Whether rows of the tensor are rows of its superposition, where they lie apart."""
    info = whole.retrieval.tensors[part.name]
    return part.rows is None or seal_matrix(info)[0] == info.shape[0]


def _small(tensor: torch.Tensor, tasks: int, kinds: Sequence[str]) -> bool:
    """Whether each task's whole tensor is kept: vectors, thin matrices, small heads."""
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return True
    if not any(kind in ("superposed", "resized") for kind in kinds):
        return tensor.numel() * tasks <= MOST_TABLE
    rows, columns = seal_matrix(TensorInfo("", "F32", tuple(tensor.shape)))
    return 8 * (rows + columns) > tensor.numel() and tensor.numel() * tasks <= MOST_TABLE


def _assembled(slot: Slot, parts: Parts, whole: Whole) -> torch.Tensor:
    """A task's whole tensor, in the model's dtype and on its device."""
    base = slot.tensor.detach()
    if parts[0].whole:
        return whole.read(parts[0].name).to(base.device, base.dtype)
    made = torch.empty_like(base)
    for part in parts:
        part.put(whole.read(part.name).to(base.device, base.dtype), made)
    return made


def _table(
    slot: Slot, by_task: Sequence[Parts | None], kinds: Sequence[str], reading: Reading
) -> Weight:
    base = slot.tensor.detach()
    found = [
        (base if by_task[-1] else torch.full_like(base, torch.nan))
        if parts is None or (kind == "base" and by_task[-1])
        else _assembled(slot, parts, whole)
        for parts, kind, whole in zip(by_task, kinds, reading.wholes, strict=True)
    ]
    lengths = [len(tensor) if tensor.dim() else 1 for tensor in found]
    for tensor in found:
        if tensor.shape[1:] != base.shape[1:]:
            raise MismatchError(
                f"{slot.names[0]}: is {list(tensor.shape)} in one task and {list(base.shape)} in "
                "the model: these are different networks; use randes_cli.Pool or unpack"
            )
    table = base.new_zeros(len(found), *([max(lengths)] if base.dim() else []), *base.shape[1:])
    for task, tensor in enumerate(found):
        target = table[task]
        (target[: len(tensor)] if base.dim() else target).copy_(tensor)
    return _plain(slot, table, lengths, reading)


def _all_alike(weight: Weight) -> bool:
    """Whether all tasks have the base's values, as they do of indices and masks."""
    table = weight.table
    if table is None or len(set(weight.lengths)) > 1:
        return False
    return bool((table == weight.base).all())


def _plain(slot: Slot, table: torch.Tensor | None, lengths: list[int], reading: Reading) -> Weight:
    groups = {whole.retrieval.task.group for whole in reading.wholes[:-1]}
    base, sides = slot.tensor.detach(), _positions(slot)
    return Weight(slot.names[0], base, (), table, {}, {}, lengths, len(groups), *sides)
