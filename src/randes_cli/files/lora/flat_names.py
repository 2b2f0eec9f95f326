"""LoRAs in names of sd-scripts (Kohya) and ComfyUI: which of the base's modules they mean.

Kohya's names have underscores for dots (`lora_unet_down_blocks_0_attentions_0_proj_in`), so they
are looked up among the base's modules. Adapter and base may each be in the names of a model's
first release (`input_blocks.4.1`), or in diffusers' (`down_blocks.1.attentions.0`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.lora.config import LoraConfig
from randes_cli.files.lora.names import (
    Sorted,
    is_of_lycoris,
    parse,
    refuse_foreign_format,
)
from randes_cli.files.lora.released_names import in_diffusers, layers_of
from randes_cli.files.source import Source
from randes_cli.specs import TensorInfo

_DIFFUSER = ("unet", "transformer", "prior"), ("model.diffusion_model.", "diffusion_model.")
#: What names begin with, and where the base may have the modules: in a component of a pipeline,
#: or in one file, under names that begin so.
_PLACES = {
    "lora_unet_": _DIFFUSER,
    "lora_transformer_": _DIFFUSER,
    "lora_prior_": _DIFFUSER,
    "diffusion_model.": _DIFFUSER,
    "lycoris_": _DIFFUSER,
    "lora_te_": (("text_encoder",), ("cond_stage_model.transformer.",)),
    "lora_te1_": (
        ("text_encoder",),
        ("conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer."),
    ),
    "lora_te2_": (("text_encoder_2",), ("text_encoders.clip_g.transformer.",)),
    "lora_te3_": (("text_encoder_3", "text_encoder_2"), ("text_encoders.t5xxl.transformer.",)),
}
_LEAVES = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "bias": "lora_B.bias",
    "core": "lora_mid.weight",
}
#: What a module may have beside factors, and what it is called here.
_MAGNITUDE = "lora_magnitude_vector"
_BESIDE = {
    "alpha": "alpha",
    "dora_scale": _MAGNITUDE,
    "diff": "lora_difference.weight",
    "w_norm": "lora_difference.weight",
    "diff_b": "lora_difference.bias",
    "b_norm": "lora_difference.bias",
}
#: Ends of what is of all rows of a module, and cannot be cut into those of several.
_UNCUT = re.compile(r"alpha|lora_(A|mid)\.weight|(hada|lokr)_.*")


def is_flat(names: Iterable[str]) -> bool:
    """Whether an adapter's tensors are named so."""
    return any(name.startswith(tuple(_PLACES)) for name in names)


class Placed:
    """A LoRA under PEFT's names of the base's modules, with the base's component in front.

    What it has of a module that is several in the base is of each of these, of B its rows.
    Raises CheckpointError where it has more than factors, MismatchError where the base lacks a
    module.
    """

    def __init__(self, adapter: Checkpoint, base: Source) -> None:
        self.source, self.metadata = adapter.source, adapter.metadata
        self.tensors: dict[str, TensorInfo] = {}
        self._adapter = adapter
        #: By name: the adapter's, and the first of its bytes.
        self._theirs: dict[str, tuple[str, int]] = {}
        self._pieces: dict[str, tuple[int, int, int]] = {}
        modules = dict[str, _Modules]()
        for name, tensor in adapter.tensors.items():
            head = next((head for head in _PLACES if name.startswith(head)), "")
            module, leaf = _parted(adapter.source, name, head)
            if head not in modules:
                modules[head] = _Modules(base, head)
            found = modules[head].find(adapter.source, name, module)
            if leaf == _MAGNITUDE and tensor.shape[:1] != (tensor.elements,):
                raise CheckpointError(f"{adapter.source}: {name!r} has lengths of inputs")
            if len(found) == 1:
                self._add(f"{found[0]}.{leaf}", name, 0, tensor)
            else:
                self._add_rows(base, found, leaf, tensor)

    def _add_rows(
        self, base: Source, modules: Sequence[str], leaf: str, tensor: TensorInfo
    ) -> None:
        """Add rows of a tensor for each module, as many as it has outputs; or all where uncut."""
        named = [module.removeprefix("/") for module in modules]
        counts = [base.tensors[f"{module}.weight"].shape[0] for module in named]
        uncut = _UNCUT.fullmatch(leaf)
        if not uncut and sum(counts) != tensor.shape[0]:
            raise MismatchError(
                f"{self.source}: {tensor.name!r} has {tensor.shape[0]} outputs, "
                f"{', '.join(named)} of the base {sum(counts)}"
            )
        first = 0
        for module, count in zip(modules, counts, strict=True):
            if uncut:
                self._add(f"{module}.{leaf}", tensor.name, 0, tensor)
                if leaf.startswith(("hada_", "lokr_")):
                    self._pieces[module] = first, first + count, sum(counts)
            else:
                own = tensor._replace(shape=(count, *tensor.shape[1:]))
                place = first * tensor.nbytes // sum(counts)
                self._add(f"{module}.{leaf}", tensor.name, place, own)
            first += count

    def _add(self, form: str, name: str, first: int, tensor: TensorInfo) -> None:
        if form in self._theirs:
            other = self._theirs[form][0]
            raise CheckpointError(f"{self.source}: {other!r} and {name!r} are of one module")
        self._theirs[form] = name, first
        self.tensors[form] = tensor._replace(name=form)

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data."""
        inner, first = self._theirs[name]
        self._adapter.read(inner, first + start, out)

    def parts(self, found: Sorted) -> Iterator[tuple[str, Sorted, LoraConfig]]:
        """Its tensors by the base's component. Each module's own α is its scaling, 1 without."""
        for component in sorted({form.partition("/")[0] for form in self.tensors}):
            part = found.below(f"{component}/")
            dora = any("m" in pair for pair in part.pairs.values())
            start = f"{component}/"
            pieces = {
                module.removeprefix(start): rows
                for module, rows in self._pieces.items()
                if module.startswith(start)
            }
            yield component, part, LoraConfig(dora=dora, pieces=pieces)


def _parted(source: str, name: str, head: str) -> tuple[str, str]:
    """The module of a tensor without its beginning, and PEFT's name for what it is of it."""
    inner, found = name[len(head) :], parse(name)
    if head and found is not None and (found.part in _LEAVES or is_of_lycoris(name)):
        return found.module[len(head) :], _LEAVES.get(found.part, found.part)
    module, _, leaf = inner.rpartition(".")
    if head and leaf in _BESIDE:
        return module, _BESIDE[leaf]
    refuse_foreign_format(source, [name])
    raise CheckpointError(f"{source}: {name!r} is no factor of a LoRA: give the factors alone")


class _Modules:
    """The base's modules that names with a beginning may mean."""

    def __init__(self, base: Source, head: str) -> None:
        components, starts = _PLACES[head]
        known = {name.rpartition("/")[0] for name in base.tensors}
        self._component = next((c for c in components if c in known), "")
        parted = (name.rpartition("/") for name in base.tensors)
        names = [name for component, _, name in parted if component == self._component]
        start = next((s for s in starts if any(name.startswith(s) for name in names)), "")
        weights = (n for n in names if n.startswith(start) and n.endswith(".weight"))
        modules = [name.removesuffix(".weight") for name in weights]
        flat = {module: module[len(start) :].replace(".", "_") for module in modules}
        self._layers, self._base = layers_of(flat.values()), base.source
        self._by_name = dict[str, set[str]]()
        for module, name in flat.items():
            for form in {name, *in_diffusers(name, self._layers), f"text_model_{name}"}:
                self._by_name.setdefault(form, set()).add(f"{self._component}/{module}")

    def find(self, source: str, name: str, module: str) -> list[str]:
        """The base's modules, with the component in front."""
        flat = module.replace(".", "_")
        forms = (flat,) if flat in self._by_name else in_diffusers(flat, self._layers)
        found = [self._by_name.get(form, ()) for form in forms]
        if any(len(one) != 1 for one in found):
            raise MismatchError(f"{source}: adapts {name!r}, which the base ({self._base}) lacks")
        return [module for one in found for module in one]
