"""Names of a model's modules, and the names that its weights are stored under.

An adapter names modules as its library had them in memory; transformers 5 calls many of them
otherwise than its files do (`vit.layers.0.attention.q_proj` is
`vit.encoder.layer.0.attention.attention.query` there), and puts the parts of models of several
kinds of input under one more word (`model.language_model.`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from randes_cli.files.checkpoint.names import Naming, guess_prefix, match_names, unwrapped
from randes_cli.files.lora.families import Piece, aliases, pieces
from randes_cli.files.lora.names import is_factor, plain_factor
from randes_cli.files.lora.ties import EMBEDDING, HEADS, SHARED
from randes_cli.specs import Tensors

#: What may lie a word higher in the file by itself: PaliGemma's `multi_modal_projector.linear`.
_ALONE = re.compile(r"model\.[a-z_]+projector\.\w+\.(weight|bias)")

#: Experts of a layer in one tensor, which files of many models have one by one.
_JOINED = re.compile(r"\.experts\.(gate_up|down)_proj$")


class StoredNames:
    """What a base's file calls what an adapter names: `wanted` are its modules' weights.

    A name of its own goes before another's; what is not found is given back as it is.
    """

    def __init__(self, base: Collection[str], wanted: Sequence[str]) -> None:
        self._stored = {name: name for name in base}
        self._pieces: dict[str, Piece] = {}
        if any(name not in self._stored for name in wanted):
            cut, known = pieces(base), {**aliases(base), **self._stored}
            self._stored = {form: name for form, (name, _) in cut.items()} | known
            self._pieces = {form: piece for form, (_, piece) in cut.items() if form not in known}
        naming = match_names(base, wanted)  # what others may call a tensor would only be rivals
        if naming is None or not naming.names:
            naming = match_names(self._stored, wanted)
        naming = naming or Naming()
        self._ours = {theirs: ours for ours, theirs in naming.names.items()}
        self._prefixes = [naming.prefix] if naming.names else []
        self._add_groups(wanted)
        self._prefixes.sort(key=lambda pair: -len(pair[0]))
        self.find = lru_cache(maxsize=2**16)(self._find)

    def _find(self, name: str) -> str:
        """The stored name."""
        form = self._form(name)
        return name if form is None else self._stored[form]

    def piece(self, name: str) -> Piece | None:
        """Which rows of the stored tensor a name stands for; None for all of them."""
        return self._pieces.get(self._form(name) or "")

    def _form(self, name: str) -> str | None:
        return next((form for form in self._forms(name) if form in self._stored), None)

    def _forms(self, name: str) -> Iterator[str]:
        if name in self._ours:
            yield self._ours[name]
        yield name
        for theirs, ours in self._prefixes:
            if name.startswith(theirs):
                yield ours + name[len(theirs) :]
        if _ALONE.fullmatch(name):
            yield name.removeprefix("model.")
        newer = aliases([name]).keys() & self._stored.keys()  # of a base as memory names it
        if len({self._stored[form] for form in newer}) == 1:
            yield from newer

    def has_module(self, last: str) -> bool:
        """Whether a weight is of a module whose name, stored or another, ends so."""
        return any(f".{form}".endswith(f".{last}.weight") for form in self._stored)

    def inside(self, module: str) -> str:
        """The stored name of a module, which a prefix maps as it does its tensors."""
        weight = f"{module}.weight"
        if (found := self.find(weight)) != weight:
            return found.removesuffix(".weight")
        for theirs, ours in self._prefixes:
            if module.startswith(theirs):
                return ours + module[len(theirs) :]
        for form, stored in self._stored.items():  # of experts, which lie apart in the file
            rest = form[len(module) :]
            if form.startswith(f"{module}.") and stored.endswith(rest):
                return stored.removesuffix(rest)
        return module

    def _add_groups(self, wanted: Sequence[str]) -> None:
        """Prefixes of what is not found so: of parts of the model that lie elsewhere as a whole.

        Never of one layer among others, which the base may just lack, nor of a single module
        (a new head), but for embeddings and output layers.
        """
        found = {name: self._find(name) for name in wanted}
        lost = [name for name, stored in found.items() if stored not in self._stored]
        known = [name for name, stored in found.items() if stored in self._stored]
        if lost:
            taken = {found[name] for name in known}
            free = {form: stored for form, stored in self._stored.items() if stored not in taken}
            own = [form for form, stored in free.items() if form == stored]
            every = [own] if len(own) == len(free) else [own, list(free)]
            self._add_below("", lost, known, every)

    def _add_below(
        self, start: str, names: list[str], known: list[str], free: Sequence[list[str]]
    ) -> None:
        """A prefix that moves all of `names`, which begin with `start`; or one for each part.

        To `free` names: the file's own, or what others call them, too, where that does not do.
        """
        mixed = any(name.startswith(start) for name in known)
        modules = {name.rpartition(".")[0] for name in names}
        alone = len(modules) < 2 and not any(map(SHARED.search, names))
        for forms in () if mixed or alone else free:
            pair = guess_prefix(forms, names)
            if pair and all(self._moves(pair, name) for name in names):
                rest = start[len(pair[0]) :] if start.startswith(pair[0]) else ""
                self._prefixes.append((pair[0] + rest, pair[1] + rest))
                return
        parts: dict[str, list[str]] = {}
        for name in names:
            word, dot, _ = name[len(start) :].partition(".")
            if dot and not word.isdigit():
                parts.setdefault(f"{start}{word}.", []).append(name)
        for part, inside in parts.items():
            self._add_below(part, inside, known, free)

    def _moves(self, pair: tuple[str, str], name: str) -> bool:
        """Whether a name is found so, and by a word, for a layer's number tells nothing."""
        theirs, ours = pair
        moved = ours + name[len(theirs) :]
        words = set(name.split(".")[:-1]) & set(moved.split(".")[:-1])
        named = not all(map(str.isdigit, words))
        return name.startswith(theirs) and moved in self._stored and named


def of_memory(base: Collection[str], task: Collection[str]) -> list[str]:
    """What to say of weights that one side has in pieces or joined, as no file has them."""
    for stored, given, whose in ((base, task, "the task"), (task, base, "the base")):
        cut, apart = pieces(stored), any(".experts.0." in name for name in stored)
        for name in given:
            if name not in stored and (name in cut or (apart and _JOINED.search(name))):
                text = f"{whose} has {name!r} as transformers has it in memory and not in files"
                return [f"{text}: save it with save_pretrained"]
    return []


def otherwise_named(
    free: Tensors, lost: Tensors, prefix: tuple[str, str], *, much: bool
) -> dict[str, str]:
    """The base's name of tensors that a checkpoint has under another name that they go by.

    That is another version's (either may be the older), one with words of wrappers inside, or of
    tied embeddings and heads another's.
    `free` are the base's that the checkpoint lacks, `lost` the checkpoint's that the base lacks;
    where they are `much` of it, parts of the model may lie elsewhere, too, as they do in memory.
    `prefix` are beginnings of names that were mapped: the checkpoint's, the base's.
    """
    theirs, instead = prefix
    plain = {instead + n.removeprefix(theirs) if n.startswith(theirs) else n: n for n in lost}
    newer, older = aliases(free), aliases(plain)
    pairs = [(plain[other], name) for other, name in newer.items() if other in plain]
    pairs += [(plain[older[name]], name) for name in free if name in older]
    bare = defaultdict[str, list[str]](list)
    for name in free:
        bare[unwrapped(name)].append(name)
    pairs += [(own, name) for form, own in plain.items() for name in bare.get(unwrapped(form), ())]
    pairs += _same_factors(lost, free)
    shared = list(filter(_is_shared, plain)), list(filter(_is_shared, free))
    if len(shared[0]) == len(shared[1]) == 1:
        pairs.append((plain[shared[0][0]], shared[1][0]))
    if much:
        find = StoredNames(free, list(lost)).find
        moved = [(name, find(name)) for name in lost if find(name) in free]
        pairs += moved if 2 * len(moved) > len(lost) else []
    form = {own: name for name, own in plain.items()}
    alike = [
        (a, b)
        for a, b in dict.fromkeys(pairs)
        if lost[a].shape == free[b].shape and _folder(form[a]) == _folder(b)
    ]
    times = Counter(name for pair in alike for name in pair)
    return {a: b for a, b in alike if times[a] == times[b] == 1}


def _same_factors(lost: Iterable[str], free: Iterable[str]) -> list[tuple[str, str]]:
    """Factors of adapters that differ in the name that the adapter itself has in them."""
    factors = {plain_factor(name): name for name in free if is_factor(name)}
    forms = ((name, plain_factor(name)) for name in lost if factors)
    return [(name, factors[form]) for name, form in forms if form in factors]


def _folder(name: str) -> str:
    """The component that a tensor is of."""
    return name.rpartition("/")[0]


def _is_shared(name: str) -> bool:
    """Whether a name is one of those that a model's embeddings and head go by together."""
    return name.rpartition("/")[2] in HEADS or bool(EMBEDDING.search(name))
