"""What the tensors of LoRA adapters are called: by PEFT, by diffusers, and by others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.names import unwrapped

#: What PEFT puts in front of every name.
WRAPPED = "base_model.model."
#: The same, and what wrappers of the whole model put before it.
_WRAPPED = re.compile(rf"^((_orig_mod|_fsdp_wrapped_module|module)\.)*{re.escape(WRAPPED)}")
#: The file of a diffusers LoRA.
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
#: The name of an adapter: in a model's state dict, not in the files that PEFT writes of it.
_NAME = r"(?:\.(?!(?:weight|bias)$)(?P<adapter>[^.]+))?"
_PEFT = re.compile(rf"(.+)\.lora_(embedding_)?([AB]){_NAME}(?:\.(weight|bias))?")
_DIFFUSERS = re.compile(r"(.+?)\.(?:lora\.|lora_linear_layer\.|lora_)(down|up|mid)\.(weight|bias)")
_LYCORIS = re.compile(
    rf"(.+)\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2){_NAME}(?:\.weight)?"
)
_DIFFERENCE = re.compile(r"(.+)\.lora_difference\.(weight|bias)")
_MAGNITUDE = re.compile(rf"(.+)\.lora_magnitude_vector{_NAME}(\.weight)?")
_TOKENS = re.compile(rf"(.+?)(\.token_adapter)?\.trainable_tokens_delta{_NAME}")
_PROCESSOR = re.compile(r"(.+?)\.to_(q|k|v|out)_lora\.(down|up)\.weight")
_LEAVES = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "eA": "lora_embedding_A",
    "eB": "lora_embedding_B",
    "bias": "lora_B.bias",
    "m": "lora_magnitude_vector",
}
#: What a saved module replaces: PEFT writes it with all biases, and never uses it.
_REPLACED = (".original_module.", ".token_adapter.base_layer.")
#: What VeLoRA and MonteCLoRA train their factors with, and no model answers by.
_TRAINING = re.compile(r"\.lora_(velora|monteclora)_")
#: The embedding below trained tokens, which PEFT writes where its vocabulary was resized.
_BEFORE = ".token_adapter.base_layer.weight"
#: Other formats, by what only their names have; the first that fits names the adapter.
_FOREIGN = {
    "a DoRA adapter": re.compile(r"\.dora_scale$"),
    "a LyCORIS adapter (OFT)": re.compile(r"\.oft_(blocks|diag)$"),
    "an mlx LoRA": re.compile(r"\.lora_[ab]$"),
    "an X-LoRA": re.compile(r"xlora_"),
    "a LoRA with whole differences beside its factors": re.compile(
        r"\.(diff|diff_b|set_weight|reshape_weight|w_norm|b_norm)$"
    ),
}
_ALPHA = ".alpha"
#: Components of pipelines that a diffusers LoRA names although its base is that part alone.
ALONE = ("unet", "transformer", "prior", "text_encoder")
_COMPONENT = re.compile(
    r"(unet|transformer|prior|text_encoder(_\d)?|connectors|diffusion_model)\.(?!h\.|layers?\.)"
)


@dataclass(frozen=True, slots=True)
class Factor:
    """One tensor of an update: of which module, and its part.

    `part` is A or B of a weight, eA or eB of an embedding, core what lies between these, bias of
    B's own bias, m of the lengths that DoRA gives a weight's outputs; weight or own bias of the
    module's own, and the names that LoHa and LoKr have.
    """

    module: str
    part: str


@lru_cache(maxsize=2**16)
def parse(name: str) -> Factor | None:
    """What a tensor is of a low-rank update; None where it is none."""
    name = name.replace(".processor.", ".")
    if found := _MAGNITUDE.fullmatch(name):
        return Factor(found[1], "m")
    if found := _PEFT.fullmatch(name):
        module, embedding, part, _, leaf = found.groups()
        if leaf == "bias":
            return Factor(module, "bias") if part == "B" else None
        return Factor(module, ("e" if embedding else "") + part)
    if found := _LYCORIS.fullmatch(name):
        return Factor(found[1], found[2])
    if found := _DIFFERENCE.fullmatch(name):
        return Factor(found[1], "weight" if found[2] == "weight" else "own bias")
    return _of_diffusers(name)


def _of_diffusers(name: str) -> Factor | None:
    if found := _PROCESSOR.fullmatch(name):
        module, which, part = found.groups()
        text = re.match(r"(.+\.)?text_encoder|.*self_attn$", module)
        last = f"{which}_proj" if text else f"to_{which}" + ".0" * (which == "out")
        return Factor(f"{module}.{last}", "A" if part == "down" else "B")
    if found := _DIFFUSERS.fullmatch(name):
        module, part, leaf = found.groups()
        if leaf == "bias":
            return Factor(module, "bias") if part == "up" else None
        return Factor(module, {"down": "A", "up": "B", "mid": "core"}[part])
    return None


def plain_factor(name: str) -> str:
    """A factor as PEFT's files call it, without the name of its adapter; other names as they are.

    Two adapters of one model may differ in nothing else: one of a file of PEFT's, one of a model's
    state dict, with the words that wrappers of modules put into it.
    """
    found = parse(unwrapped(name).removeprefix(WRAPPED))
    if found is None or found.part not in _LEAVES:
        return name
    return f"{WRAPPED}{found.module}.{_LEAVES[found.part]}"


def is_of_lycoris(name: str) -> bool:
    """Whether a tensor is a part of a LoHa or LoKr."""
    return (".hada_" in name or ".lokr_" in name) and parse(name) is not None


def is_factor(name: str) -> bool:
    """Whether a tensor is a factor of a low-rank update, in PEFT's or another format."""
    if "lora" not in name:  # as in 100,000 names of a model
        return False
    found = parse(name)
    return found is not None and found.part not in ("bias", "m")


def foreign(names: Iterable[str]) -> str | None:
    """What an adapter is that cannot be merged, in words."""
    names = list(names)
    for what, pattern in _FOREIGN.items():
        if any(map(pattern.search, names)):
            return what
    return None


def refuse_foreign_format(source: str, names: Iterable[str]) -> None:
    """Raise CheckpointError where an adapter is `foreign`."""
    what = foreign(names)
    if what:
        raise CheckpointError(
            f"{source}: {what}: cannot be merged; merge it with the library that it comes from "
            "and give the full checkpoint"
        )


@dataclass(frozen=True, slots=True)
class Sorted:
    """An adapter's tensors by what they are.

    Attributes:
        pairs: tensor names by module and part (see `Factor`).
        alphas: tensor names of a module's own α, by module.
        tokens: tensor names of single rows of an embedding, by module.
        saved: tensor names by their names in the model: heads, biases, embeddings.
        before: likewise, of embeddings as they were before rows of them were trained.
    """

    pairs: dict[str, dict[str, str]] = field(default_factory=dict)
    alphas: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    def below(self, start: str) -> Sorted:
        """The tensors of one component, without its name in front."""
        at = len(start)
        pairs = {name[at:]: it for name, it in self.pairs.items() if name.startswith(start)}
        others = (
            {name[at:]: it for name, it in part.items() if name.startswith(start)}
            for part in (self.alphas, self.tokens, self.saved, self.before)
        )
        return Sorted(pairs, *others)


def sort_tensors(source: str, names: Iterable[str]) -> Sorted:
    """An adapter's tensors sorted. Raises CheckpointError where it is of another format."""
    names = list(names)
    refuse_foreign_format(source, names)
    made = Sorted()
    adapter = _adapter_of(source, names)
    for name in names:
        inner = _WRAPPED.sub("", name)
        found = parse(inner)
        if found is not None:
            parts = made.pairs.setdefault(found.module, {})
            other = parts.setdefault(found.part, name)
            if found.part == "m" and f"{other}.weight" == name:
                parts["m"] = name  # PEFT writes an embedding's under both of its names
            elif other != name:
                raise CheckpointError(f"{source}: {other!r} and {name!r} are of several adapters")
        elif rows := _TOKENS.fullmatch(inner):
            made.tokens[rows[1]] = name
        elif inner.endswith(_ALPHA):
            made.alphas[inner.removesuffix(_ALPHA)] = name
        elif inner.endswith(_BEFORE):
            made.before[f"{inner.removesuffix(_BEFORE)}.weight"] = name
        elif not (any(part in inner for part in _REPLACED) or _TRAINING.search(inner)):
            made.saved[plain_name(inner, adapter)] = name
    if not made.pairs and not made.tokens:
        raise CheckpointError(f"{source}: an adapter without LoRA factors")
    return made


def components_of(source: str, found: Sorted) -> list[str]:
    """The components that an adapter has factors of. Raises where it has more of none of them."""
    made = sorted({module.partition(".")[0] for module in found.pairs})
    for name in (*found.saved, *found.tokens, *found.alphas, *found.before):
        if name.partition(".")[0] not in made:
            raise CheckpointError(
                f"{source}: {name!r} belongs to no part that it adapts ({', '.join(made)}): "
                "give the factors alone"
            )
    return made


def _adapter_of(source: str, names: Iterable[str]) -> str:
    """The name that a state dict's factors have of their adapter, or "". Refuses several."""
    forms = (_PEFT, _TOKENS, _LYCORIS)
    found = (form.fullmatch(name) for name in names if "_" in name for form in forms)
    adapters = sorted({str(one["adapter"]) for one in found if one and one["adapter"]})
    if len(adapters) > 1:
        raise CheckpointError(
            f"{source}: the factors of several adapters ({', '.join(adapters[:5])}); save each "
            "by itself with PEFT's save_pretrained"
        )
    return adapters[0] if adapters else ""


def plain_name(name: str, adapter: str) -> str:
    """A saved tensor's name in the model; `adapter` as of `_adapter_of`."""
    name = name.replace(f".modules_to_save.{adapter or 'default'}.", ".modules_to_save.")
    return name.replace(".modules_to_save.", ".").replace(".base_layer.", ".")


def has_components(modules: Iterable[str]) -> bool:
    return all(map(_COMPONENT.match, modules))


def in_diffusers_words(names: Iterable[str]) -> bool:
    """Whether names are as diffusers alone writes them."""
    return any(_DIFFUSERS.fullmatch(name) or _PROCESSOR.fullmatch(name) for name in names)
