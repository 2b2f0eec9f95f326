"""Names of a model's modules, and the names that its weights are stored under.

An adapter names modules as its library had them in memory; transformers 5 calls many of them
otherwise than its files do (`vit.layers.0.attention.q_proj` is
`vit.encoder.layer.0.attention.attention.query` there), and puts the parts of models of several
kinds of input under one more word (`model.language_model.`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from randes_cli.files.checkpoint.names import guess_prefix, match_names, unwrapped
from randes_cli.files.lora.names import is_factor, plain_factor
from randes_cli.files.lora.ties import EMBEDDING, HEADS, SHARED
from randes_cli.specs import Tensors

_ATTENTION = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
#: Families of models: words of stored names, and what the modules are called instead, as
#: transformers' own table of conversions has them. All of a family are put in, in this order.
_FAMILIES: tuple[tuple[tuple[str, str], ...], ...] = (
    # Mixtral, MiniMax
    ((r"\.block_sparse_moe\.", ".mlp."),),
    # PhiMoE
    ((r"\.block_sparse_moe\.gate\.", ".mlp.router."),),
    # GraniteMoE
    (
        (r"\.input_linear\.weight$", ".experts.gate_up_proj"),
        (r"\.output_linear\.weight$", ".experts.down_proj"),
        (r"\.router\.layer\.", ".router."),
    ),
    # GPT-NeoX
    ((r"^embed_out\.", "lm_head."),),
    # HYV3, HYV4, LFM3, GLM 5 Next
    ((r"\.mlp\.shared_mlp\.", ".mlp.shared_experts."),),
    ((r"\.linear_gate\.", ".gate_proj."),),
    ((r"\.self_attn\.gate_proj\.", ".self_attn.g_proj."),),
    ((r"\.self_attn\.f_([ab])_proj\.", r".self_attn.forget_gate.f_\1_proj."),),
    # HunYuan's eye
    (
        (r"\.dense_h_to_4h\.", ".fc1."),
        (r"\.dense_4h_to_h\.", ".fc2."),
        (r"\.perceive\.", ".patch_merger."),
    ),
    # BERT, ESM and others of the first years
    ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    # Wav2Vec2, HuBERT, WavLM, EnCodec …: torch's weight norm, before and since it parametrizes
    (
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ),
    # VideoMAE
    ((r"\.q_bias$", ".query.bias"), (r"\.v_bias$", ".value.bias")),
    # ViT, DeiT, BEiT, AST, ViTMAE, ViViT, I-JEPA
    (
        (r"(^|\.)encoder\.layer\.", r"\1layers."),
        *((rf"\.attention\.attention\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
    # DINOv2
    (
        *((rf"\.attention\.attention\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
    ),
    # Swin
    (
        *((rf"\.attention\.self\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
    # SegFormer
    (
        (r"(^|\.)encoder\.patch_embeddings\.(\d+)\.", r"\1stages.\2.patch_embeddings."),
        (r"(^|\.)encoder\.block\.(\d+)\.", r"\1stages.\2.blocks."),
        (r"(^|\.)encoder\.layer_norm\.(\d+)\.", r"\1stages.\2.layer_norm."),
        *((rf"\.attention\.self\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
        (r"\.layer_norm_1\.", ".layernorm_before."),
        (r"\.layer_norm_2\.", ".layernorm_after."),
        (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
        (r"(^|\.)decode_head\.linear_c\.", r"\1decode_head.linear_projections."),
    ),
    # DETR and its kin
    (
        (r"\.out_proj\.", ".o_proj."),
        (r"\.layers\.(\d+)\.fc([12])\.", r".layers.\1.mlp.fc\2."),
    ),
)


#: What may lie a word higher in the file by itself: PaliGemma's `multi_modal_projector.linear`.
_ALONE = re.compile(r"model\.[a-z_]+projector\.\w+\.(weight|bias)")


def _aliases(names: Iterable[str]) -> dict[str, str]:
    """Stored names by what a model may call them; none that stands for two."""
    made: dict[str, str] = {}
    twice = set[str]()
    for name in names:
        for family in _FAMILIES:
            other = name
            for words, instead in family:
                other = re.sub(words, instead, other)
            if other != name and made.setdefault(other, name) != name:
                twice.add(other)
    return {other: name for other, name in made.items() if other not in twice}


class StoredNames:
    """What a base's file calls what an adapter names: `wanted` are its modules' weights.

    A name of its own goes before another's; what is not found is given back as it is.
    """

    def __init__(self, base: Collection[str], wanted: Sequence[str]) -> None:
        self._stored = {name: name for name in base}
        if any(name not in self._stored for name in wanted):
            self._stored = {**_aliases(base), **self._stored}
        naming = match_names(base, wanted)  # what others may call a tensor would only be rivals
        if naming is None or not naming.names:
            naming = match_names(self._stored, wanted)
        self._ours = {theirs: ours for ours, theirs in ((naming and naming.names) or {}).items()}
        self._prefixes = [naming.prefix] if naming and naming.names else []
        self._add_groups(wanted)
        self._prefixes.sort(key=lambda pair: -len(pair[0]))
        self.find = lru_cache(maxsize=2**16)(self._find)

    def _find(self, name: str) -> str:
        """The stored name."""
        return next(
            (self._stored[form] for form in self._forms(name) if form in self._stored), name
        )

    def _forms(self, name: str) -> Iterator[str]:
        if name in self._ours:
            yield self._ours[name]
        yield name
        for theirs, ours in self._prefixes:
            if name.startswith(theirs):
                yield ours + name[len(theirs) :]
        if _ALONE.fullmatch(name):
            yield name.removeprefix("model.")

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
            free = [form for form, stored in self._stored.items() if stored not in taken]
            self._add_below("", lost, known, free)

    def _add_below(
        self, start: str, names: list[str], known: list[str], free: Collection[str]
    ) -> None:
        """A prefix that moves all of `names`, which begin with `start`; or one for each part."""
        mixed = any(name.startswith(start) for name in known)
        modules = {name.rpartition(".")[0] for name in names}
        alone = len(modules) < 2 and not any(map(SHARED.search, names))
        pair = None if mixed or alone else guess_prefix(free, names)
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
        theirs, ours = pair
        return name.startswith(theirs) and ours + name[len(theirs) :] in self._stored


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
    newer, older = _aliases(free), _aliases(plain)
    pairs = [(plain[other], name) for other, name in newer.items() if other in plain]
    pairs += [(plain[older[name]], name) for name in free if name in older]
    pairs += [(own, name) for form, own in plain.items() if (name := unwrapped(form)) in free]
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
