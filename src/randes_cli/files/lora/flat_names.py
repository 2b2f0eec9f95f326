"""LoRAs in names of sd-scripts (Kohya) and ComfyUI: which of the base's modules they mean.

Kohya's names have underscores for dots (`lora_unet_down_blocks_0_attentions_0_proj_in`), so they
are looked up among the base's modules. The UNet of Stable Diffusion has two sets of names: those
of its first release (`input_blocks.4.1`), and diffusers' (`down_blocks.1.attentions.0`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.lora.config import LoraConfig
from randes_cli.files.lora.names import Sorted, parse, refuse_foreign_format
from randes_cli.files.source import Renamed, Source

_DIFFUSER = ("unet", "transformer", "prior"), ("model.diffusion_model.", "diffusion_model.")
#: What names begin with, and where the base may have the modules: in a component of a pipeline,
#: or in one file, under names that begin so.
_PLACES = {
    "lora_unet_": _DIFFUSER,
    "lora_transformer_": _DIFFUSER,
    "lora_prior_": _DIFFUSER,
    "diffusion_model.": _DIFFUSER,
    "lora_te_": (("text_encoder",), ("cond_stage_model.transformer.",)),
    "lora_te1_": (
        ("text_encoder",),
        ("conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer."),
    ),
    "lora_te2_": (("text_encoder_2",), ("text_encoders.clip_g.transformer.",)),
    "lora_te3_": (("text_encoder_3",), ("text_encoders.t5xxl.transformer.",)),
}
_LEAVES = {"A": "lora_A.weight", "B": "lora_B.weight", "bias": "lora_B.bias"}
_MAGNITUDE = "lora_magnitude_vector"
_BLOCKS = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(.+)")
_MIDDLE = re.compile(r"middle_block_([012])_(.+)")
#: Modules of a residual block, and those around the blocks: first release, diffusers.
_RESIDUAL = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_AROUND = {
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}


def is_flat(names: Iterable[str]) -> bool:
    """Whether an adapter's tensors are named so."""
    return any(name.startswith(tuple(_PLACES)) for name in names)


class Placed(Renamed):
    """A LoRA under PEFT's names of the base's modules, with the base's component in front.

    Raises CheckpointError where it has more than factors, MismatchError where the base lacks a
    module.
    """

    def __init__(self, adapter: Checkpoint, base: Source) -> None:
        modules = dict[str, _Modules]()
        theirs = dict[str, str]()
        for name, tensor in adapter.tensors.items():
            head = next((head for head in _PLACES if name.startswith(head)), "")
            module, leaf = _parted(adapter.source, name, head)
            if head not in modules:
                modules[head] = _Modules(base, head)
            component, inner = modules[head].find(adapter.source, name, module)
            if leaf == _MAGNITUDE and tensor.shape[:1] != (tensor.elements,):
                raise CheckpointError(f"{adapter.source}: {name!r} has lengths of inputs")
            form = f"{component}/{inner}.{leaf}"
            if form in theirs:
                raise CheckpointError(f"{adapter.source}: {theirs[form]!r} and {name!r} are one")
            theirs[form] = name
        tensors = {f: adapter.tensors[n]._replace(name=f) for f, n in theirs.items()}
        super().__init__(adapter, tensors, theirs)

    def parts(self, found: Sorted) -> Iterator[tuple[str, Sorted, LoraConfig]]:
        """Its tensors by the base's component. Each module's own α is its scaling, 1 without."""
        for component in sorted({form.partition("/")[0] for form in self.tensors}):
            part = found.below(f"{component}/")
            dora = any("m" in pair for pair in part.pairs.values())
            yield component, part, LoraConfig(dora=dora)


def _parted(source: str, name: str, head: str) -> tuple[str, str]:
    """The module of a tensor without its beginning, and PEFT's name for what it is of it."""
    inner, found = name[len(head) :], parse(name)
    if head and found is not None and found.part in _LEAVES:
        return found.module[len(head) :], _LEAVES[found.part]
    for leaf, plain in ((".alpha", "alpha"), (".dora_scale", _MAGNITUDE)):
        if head and inner.endswith(leaf):
            return inner.removesuffix(leaf), plain
    refuse_foreign_format(source, [name])
    raise CheckpointError(f"{source}: {name!r} is no factor of a LoRA: give the factors alone")


class _Modules:
    """The base's modules that names with a beginning may mean."""

    def __init__(self, base: Source, head: str) -> None:
        components, starts = _PLACES[head]
        known = {name.rpartition("/")[0] for name in base.tensors}
        self.component = next((c for c in components if c in known), "")
        names = [n.rpartition("/")[2] for n in base.tensors if _is_in(n, self.component)]
        start = next((s for s in starts if any(name.startswith(s) for name in names)), "")
        modules = dict.fromkeys(n.rpartition(".")[0] for n in names if n.startswith(start))
        self._layers = _layers([module[len(start) :] for module in modules])
        self._base = base.source
        self._by_name = dict[str, set[str]]()
        for module in modules:
            flat = module[len(start) :].replace(".", "_")
            for form in {flat, in_diffusers(flat, self._layers), f"text_model_{flat}"}:
                self._by_name.setdefault(form, set()).add(module)

    def find(self, source: str, name: str, module: str) -> tuple[str, str]:
        """The base's component and module."""
        flat = module.replace(".", "_")
        found = self._by_name.get(flat) or self._by_name.get(in_diffusers(flat, self._layers))
        if found is None or len(found) > 1:
            raise MismatchError(f"{source}: adapts {name!r}, which the base ({self._base}) lacks")
        return self.component, next(iter(found))


def _is_in(name: str, component: str) -> bool:
    return name.rpartition("/")[0] == component


def _layers(modules: Collection[str]) -> int:
    """How many residual blocks each block of a UNet has on the way down."""
    first = [m for m in modules if re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1", m)]
    ends = [int(m.split(".")[1]) for m in modules if re.fullmatch(r"input_blocks\.\d+\.0\.op", m)]
    return len(first) or min(ends, default=3) - 1


def in_diffusers(flat: str, layers: int) -> str:
    """A UNet's module, called as in its first release, as diffusers calls it; others as they are.

    Both with underscores for dots.
    """
    if flat in _AROUND:
        return _AROUND[flat]
    if found := _MIDDLE.fullmatch(flat):
        place, rest = int(found[1]), found[2]
        kind = "attentions_0" if place == 1 else f"resnets_{place // 2}"
        return f"mid_block_{kind}_{_RESIDUAL.get(rest, rest)}"
    found = _BLOCKS.fullmatch(flat)
    if found is None:
        return flat
    down, rest = found[1] == "input", found[4]
    block, layer = divmod(int(found[2]) - down, layers + 1)
    start = f"down_blocks_{block}" if down else f"up_blocks_{block}"
    if rest in ("op", "conv"):
        return f"{start}_{'down' if down else 'up'}samplers_0_conv"
    kind = "attentions" if found[3] == "1" else "resnets"
    return f"{start}_{kind}_{layer}_{_RESIDUAL.get(rest, rest)}"
