"""The parts of an adapter: what it has of each component of its base, and how that is scaled."""

from __future__ import annotations

from collections.abc import Iterator

from randes_cli.errors import MismatchError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.lora.config import LoraConfig, component_config, is_diffusers, lora_config
from randes_cli.files.lora.flat_names import Placed
from randes_cli.files.lora.names import ALONE, Sorted, components_of, has_components, sort_tensors
from randes_cli.files.lora.view import BASE_LAYER, Part
from randes_cli.files.source import Source


def components(base: Source) -> list[str]:
    """What the names of a base have in front; [""] of a single model."""
    return sorted({name.rpartition("/")[0] for name in base.tensors})


def weights_of(found: Sorted) -> list[str]:
    """The weights that an adapter adapts, in its own names."""
    modules = dict.fromkeys([*found.pairs, *found.tokens])
    return [f"{module.replace(BASE_LAYER, '')}.weight" for module in modules]


def parted(adapter: Checkpoint | Placed, base: Source) -> Iterator[tuple[str, Sorted, LoraConfig]]:
    """An adapter's tensors by the base's component, each with its configuration."""
    found = sort_tensors(adapter.source, adapter.tensors)
    if isinstance(adapter, Placed):
        yield from adapter.parts(found)
    elif not is_diffusers(adapter):
        yield _only_component(adapter.source, base, found), found, lora_config(adapter)
    elif not has_components(found.pairs):
        config = component_config(adapter, "")
        yield _only_component(adapter.source, base, found), found, config
    else:
        for prefix in components_of(adapter.source, found):
            known = prefix in components(base)
            if not known and prefix not in ALONE:
                raise MismatchError(f"{adapter.source}: adapts {prefix}, which the base lacks")
            config = component_config(adapter, prefix)
            yield prefix if known else "", found.below(f"{prefix}."), config


def _only_component(source: str, base: Source, found: Sorted) -> str:
    """The base's component that has all modules of an adapter of a single model."""
    known = components(base)
    if len(known) == 1:
        return known[0]
    weights, fits = weights_of(found), []
    for component in known:
        part = Part(base, component, [*weights, *found.saved])
        if any(part.rename(name) in base.tensors for name in weights):
            fits.append(component)
    if len(fits) == 1:
        return fits[0]
    if not fits:
        first = next(iter([*found.pairs, *found.tokens]))
        raise MismatchError(f"{source}: adapts {first}, which the base ({base.source}) lacks")
    raise MismatchError(f"{source}: fits {' and '.join(fits)} of the base; which is meant?")
