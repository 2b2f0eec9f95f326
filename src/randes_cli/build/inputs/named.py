"""Tasks under the names that a bank has for their tensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from randes_cli.build.inputs.participants import OpenTask
from randes_cli.build.inputs.zeros import zeros_in_place
from randes_cli.errors import MismatchError, counted
from randes_cli.files.checkpoint.names import (
    Naming,
    as_component,
    components_like,
    is_small_part,
    match_names,
    renamed,
)
from randes_cli.files.checkpoint.shared import Classes, find_ties, ties_of
from randes_cli.files.lora.stored_names import otherwise_named
from randes_cli.files.source import Source
from randes_cli.fit import LEAST_MATCH
from randes_cli.plan import tensor_bytes


def named_like(
    base: Source, checkpoint: Source, components: Collection[str] = ()
) -> tuple[Source, Naming, tuple[str, ...]]:
    """A checkpoint under the base's names, how they were mapped, and what to say of it.

    `components` are the base's: a checkpoint may be one of them alone.
    """
    part = components_like(base.tensors, checkpoint.tensors, components)
    if len(part) > 1:
        raise MismatchError(
            f"{checkpoint.source}: fits several components of the base alike; name as the base "
            f"the folder of the one that it is from ({' or '.join(part)})"
        )
    if part:
        alone = as_component(part[0], base.tensors, checkpoint.tensors)
        named = alone.names
        note = f"is the base's {part[0]}/ alone, and comes back as that; the rest is the base's"
        if len(named) < len(checkpoint.tensors):
            note = f"{len(named)} names are the base's of {part[0]}/; mapped, and given back"
        return renamed(checkpoint, named), alone, (note,)
    naming = match_names(base.tensors, checkpoint.tensors)
    if naming is not None and is_small_part(naming, checkpoint.tensors):
        naming = Naming()
    if naming is None:
        raise MismatchError(
            f"{checkpoint.source}: its names differ from the base's by a prefix, but without it "
            "two tensors would have one name; rename them"
        )
    if not naming.names:
        return checkpoint, naming, ()
    theirs, ours = naming.prefix
    note = (
        f"{len(naming.names)} names have {theirs!r} where the base has {ours!r}; "
        "mapped, and given back as they are"
    )
    return renamed(checkpoint, naming.names), naming, (note,)


def kept_once(opened: OpenTask, base: Source, alike: Classes | None) -> OpenTask:
    """A task under the names that a bank keeps its tensors under.

    `alike` are its equal tensors; None where they are unknown, and each is taken for itself.
    """
    source, ties = opened.source, dict[str, str]()
    if alike is not None:
        opened = replace(opened, notes=(*opened.notes, *zeros_in_place(base, source)))
        ties = find_ties(source, base.tensors, ties_of(base), alike)
    named = [n for n in source.tensors if n not in base.tensors and n not in ties]
    if not named:
        return opened.under(ties)
    lost = {name: source.tensors[name] for name in named}
    taken = {*source.tensors, *ties.values()}
    shapes = {tensor.shape for tensor in lost.values()}
    left = {name: base.tensors[name] for name in base.tensors if name not in taken}
    free = {name: tensor for name, tensor in left.items() if tensor.shape in shapes}
    much = tensor_bytes(lost.values()) > (1 - LEAST_MATCH) * tensor_bytes(source.tensors.values())
    others = otherwise_named(free, lost, opened.naming.prefix, much=much)
    if not others:
        return opened.under(ties)
    theirs, ours = next(iter(others.items()))
    note = (
        f"{counted(len(others), 'tensor')} under another name ({theirs} is the base's {ours}); "
        "matched, and given back as it is"
    )
    return replace(opened.under(ties | others), notes=(*opened.notes, note))
