"""Which tensors of a checkpoint each parameter of a module is made of.

Mostly one, under the same name. transformers renames while it loads, puts the experts of a
layer into one tensor, and the like: see `following`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch

from randes_cli.live.matching.adapters import plain_state
from randes_cli.live.matching.following import follow
from randes_cli.live.weights.parts import Part, Parts


def parameter_parts(
    module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Parts]:
    """By parameter or buffer of `module` (state dict names): the tensors of `shapes` in it.

    Raises MismatchError where a library's conversion is of a kind that cannot be followed.
    """
    fix: Any = getattr(module, "_fix_state_dict_keys_on_load", None)
    if fix is not None:  # diffusers
        renamed = {name: name for name in shapes}
        fix(renamed)
        return {new: (Part(old),) for new, old in renamed.items()}
    if hasattr(module, "base_model_prefix"):  # transformers
        return _converted(module, shapes)
    return {name: (Part(name),) for name in shapes}


def _converted(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Parts]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    known = plain_state(module)
    steps = get_model_conversion_mapping(module)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    by_pattern = {key: step for step in converters for key in step.source_patterns}
    made: dict[str, Parts] = {}
    gathered: dict[str, tuple[Any, list[tuple[str, str]]]] = {}
    for name in sorted(shapes, key=dot_natural_key):
        new, pattern = rename_source_key(
            name, renamings, converters, module.base_model_prefix, known
        )
        if new not in known and name in known:
            new, pattern = rename_source_key(name, [], [], module.base_model_prefix, known)
        if pattern is None:
            made[new] = (Part(name),)
        else:
            step = gathered.setdefault(new, (deepcopy(by_pattern[pattern]), []))
            step[1].append((name, pattern))
    for first, (step, sources) in gathered.items():
        made.update(follow(module, first, step, sources, shapes))
    return made
