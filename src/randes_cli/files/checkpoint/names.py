"""Names: a checkpoint whose tensors bear another prefix than the base's.

Training wrappers (`module.`, `_orig_mod.`), adapters (`base_model.model.`) and heads
(`bert.`, `model.`) put words in front of every name. Where taking them off (or putting them
on) maps names to the base's one to one, the checkpoint is read under the base's names, and
the record keeps the pair so that the task gets its own names back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from randes_cli.files.source import Renamed, Source
from randes_cli.plan import tensor_bytes
from randes_cli.specs import Tensors

#: Leading words that a prefix may have: `_orig_mod.module.base_model.model.model.` has five.
_MOST_WORDS = 6
#: An ending that more beginnings share (``q_proj.weight``) tells nothing.
_MOST_BEGINNINGS = 8
#: Names that vote on a prefix.
_VOTERS = 2000
#: Words that wrappers of modules put into names (torch.compile, FSDP, checkpointing).
_WRAPPER = re.compile(r"_orig_mod|_(fsdp|checkpoint)_wrapped_module|module")
#: A factor of a low-rank update, as PEFT calls it.
_FACTOR = re.compile(r"\.lora_(embedding_)?[AB](\.|$)")


@dataclass(frozen=True, slots=True)
class Naming:
    """How a checkpoint's names become the base's.

    Attributes:
        prefix: (the checkpoint's, the base's) beginning of names.
        names: the checkpoint's name by the base's, for the names that differ.
        unprefixed: the base's names that the checkpoint uses although they begin like mapped ones.
    """

    prefix: tuple[str, str] = ("", "")
    names: Mapping[str, str] = field(default_factory=dict)
    unprefixed: frozenset[str] = frozenset()

    @property
    def component(self) -> str:
        """The beginning of the names of the base's component that the checkpoint is, if any."""
        return self.prefix[1] if self.prefix[1].endswith("/") else ""


def _beginnings(name: str) -> Iterable[tuple[str, str]]:
    """(prefix, rest) of a name, the prefix being a component or up to so many leading words.

    The rest keeps two words, for one (``weight``) tells nothing.
    """
    position = name.rfind("/") + 1
    if position:
        yield "", name
    for _ in range(_MOST_WORDS):
        yield name[:position], name[position:]
        position = name.find(".", position) + 1
        if not position or "." not in name[position:]:
            return


def _parted(theirs: str, ours: str) -> tuple[str, str]:
    """Two prefixes without the words that both end with: what really differs."""
    left, right = theirs.split(".")[:-1], ours.split(".")[:-1]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return ".".join(left), ".".join(right)


def _is_wrapping(theirs: str, ours: str) -> bool:
    """Whether prefixes may be of one module: not of two layers of one model."""
    left, right = (part.rpartition(".")[2] for part in _parted(theirs, ours))
    return not (left.isdigit() and right.isdigit())


def guess_prefix(base: Collection[str], given: Collection[str]) -> tuple[str, str] | None:
    """(prefix to take off, prefix to put on) that turns most given names into the base's.

    None where the base has two places that fit as well, by names and (of mappings) by shapes.
    """
    voters = list(given)[:: max(1, len(given) // _VOTERS)]
    parted = [pair for name in voters for pair in _beginnings(name)]
    endings: dict[str, set[str]] = {rest: set() for _, rest in parted}
    for name in base:
        for prefix, rest in _beginnings(name):
            if rest in endings and len(endings[rest]) <= _MOST_BEGINNINGS:
                endings[rest].add(prefix)
    votes = Counter(
        (prefix, ours)
        for prefix, rest in parted
        if len(endings[rest]) <= _MOST_BEGINNINGS
        for ours in endings[rest]
        if _is_wrapping(prefix, ours)
    )
    best = max(votes, key=lambda pair: (votes[pair], -sum(map(len, pair))), default=None)
    if best is None or best[0] == best[1]:
        return None
    alike = [pair for pair in votes if votes[pair] == votes[best]]
    rivals = {_parted(*pair): pair for pair in alike if _parted(*pair)[0] == _parted(*best)[0]}
    if len(rivals) < 2:
        return best
    pairs = [best, *rivals.values()]
    return _of_shapes(pairs, base, given) or _of_words(pairs)


def _of_shapes(
    pairs: Sequence[tuple[str, str]], base: Collection[str], given: Collection[str]
) -> tuple[str, str] | None:
    """The pair of prefixes under which more shapes agree than under any that means another."""
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return None
    count = {
        (theirs, ours): sum(
            getattr(base.get(ours + name[len(theirs) :]), "shape", None) == tensor.shape
            for name, tensor in given.items()
            if name.startswith(theirs)
        )
        for theirs, ours in pairs
    }
    return _clearly(pairs, count)


def _of_words(pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The pair of prefixes with more words in common than any that means another.

    Of words before those that all names go on with, which tell nothing.
    """
    parted = {pair: _parted(*pair) for pair in pairs}
    count = {
        pair: len(set(theirs.split(".")) & set(ours.split(".")))
        for pair, (theirs, ours) in parted.items()
    }
    return _clearly(pairs, count)


def _clearly(
    pairs: Sequence[tuple[str, str]], count: Mapping[tuple[str, str], int]
) -> tuple[str, str] | None:
    """The pair that counts most, unless one that means another counts as much."""
    best = max(pairs, key=lambda pair: count[pair])
    rivals = [pair for pair in pairs if _parted(*pair) != _parted(*best)]
    return best if all(count[pair] < count[best] for pair in rivals) else None


def components_like(base: Tensors, given: Tensors, components: Iterable[str]) -> list[str]:
    """The components of a base that a checkpoint may be one of: most of its tensors are there.

    By names and shapes, then by what the component has besides; several where they fit as well.
    """
    if 2 * sum(name in base for name in given) >= len(given):
        return []
    fits: dict[str, tuple[int, int]] = {}
    for component in filter(None, components):
        start = f"{component}/"
        inside = {n.removeprefix(start): t for n, t in base.items() if n.startswith(start)}
        alike = (n for n, t in given.items() if n in inside and inside[n].shape == t.shape)
        fits[component] = sum(1 for _ in alike), -len(inside)
    best = max(fits.values(), default=(0, 0))
    return [one for one, fit in fits.items() if fit == best and 2 * best[0] > len(given)]


def as_component(component: str, base: Collection[str], given: Iterable[str]) -> Naming:
    """The naming of a checkpoint that is one component of the base."""
    mapped = {f"{component}/{name}": name for name in given if f"{component}/{name}" in base}
    return Naming(("", f"{component}/"), mapped)


def match_names(base: Collection[str], given: Collection[str]) -> Naming | None:
    """The naming under which a checkpoint shares most names with the base.

    None where names would have to change and two would become one.
    """
    if given is base:
        return Naming()
    wanted = set(base)
    alike = sum(name in wanted for name in given)
    prefix = guess_prefix(base, given) if 2 * alike < len(given) else None
    if prefix is None:
        return Naming()
    theirs, ours = prefix
    mapped = {
        ours + name[len(theirs) :]: name
        for name in given
        if name.startswith(theirs) and ours + name[len(theirs) :] in wanted
    }
    if len(mapped) <= alike or 2 * len(mapped) < min(len(given), len(wanted)):
        return Naming()
    moved = set(mapped.values())
    plain = {name for name in given if name not in moved}
    if plain & set(mapped):
        return None
    return Naming(prefix, mapped, frozenset(n for n in plain & wanted if n.startswith(ours)))


def is_small_part(naming: Naming, given: Tensors) -> bool:
    """Whether the component of a checkpoint that is the base leaves most of it beside it."""
    if "/" not in naming.prefix[0]:
        return False
    mapped = tensor_bytes(given[name] for name in naming.names.values())
    return 2 * mapped < tensor_bytes(given.values())


def renamed(checkpoint: Source, names: Mapping[str, str]) -> Source:
    """A checkpoint read under the base's names, each of which stands for one of its own."""
    ours = {theirs: name for name, theirs in names.items()}
    moved = {ours.get(name, name): tensor for name, tensor in checkpoint.tensors.items()}
    tensors = {name: tensor._replace(name=name) for name, tensor in moved.items()}
    return Renamed(checkpoint, tensors, names)


def unwrapped(name: str) -> str:
    """A name without the words that wrappers of modules inside the model put into it."""
    return ".".join(part for part in name.split(".") if not _WRAPPER.fullmatch(part))


def unmerged(names: Iterable[str]) -> list[str]:
    """What to say of a model that was saved with its adapter beside its weights."""
    for name in names:
        where = "below" if ".base_layer." in name else "part of" if _FACTOR.search(name) else ""
        if where:
            return [f"{name!r} is {where} an adapter: merge_and_unload, then save the model"]
    return []
