"""Layers whose experts lie in one tensor each, for tokens of different tasks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.parameters.mixed_parameter import Mixed
from randes_cli.live.weights.group import Group
from randes_cli.live.weights.weight import Weight

#: What transformers calls the arguments of such a layer.
_ARGUMENTS = (
    ["hidden_states", "top_k_index", "top_k_weights"],
    ["hidden_states", "router_indices", "routing_weights"],
)


def takes_tokens(module: torch.nn.Module) -> bool:
    """Whether a module gives tokens to experts: all its inputs have a line for each token."""
    return list(inspect.signature(type(module).forward).parameters)[1:4] in _ARGUMENTS


def is_fused(module: torch.nn.Module) -> bool:
    """Whether such a module is of the kind that `forward` computes."""
    own = getattr(module, "down_proj", None)
    return isinstance(own, torch.Tensor) and own.dim() == 3 and hasattr(module, "num_experts")


def gives_all(module: torch.nn.Module) -> bool:
    """Whether every expert of a module is given every token, one expert's after another's."""
    return type(module).__name__ == "Llama4TextExperts"


def all_forward(module: Any, current: Current, hidden_states: torch.Tensor) -> torch.Tensor:
    """What such a module computes of [experts · n, hidden]."""
    selection = current.get()
    given = hidden_states.reshape(module.num_experts, -1, hidden_states.shape[-1])
    tasks = selection.only if selection.only is not None else selection.along(given[0])
    made = []
    for expert, tokens in enumerate(given):
        inner = _of_expert(module.gate_up_proj, expert, tasks, tokens, True, selection)
        gate, up = inner.chunk(2, dim=-1)
        inner = up * module.act_fn(gate)
        made.append(_of_expert(module.down_proj, expert, tasks, inner, True, selection))
    return torch.cat(made)


def forward(
    module: Any,
    current: Current,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """What the module computes: tokens [n, hidden], each by its own experts and its own task."""
    selection = current.get()
    index = selection.only if selection.only is not None else selection.along(hidden_states)
    made = torch.zeros_like(hidden_states)
    up = "gate_up_proj" if hasattr(module, "gate_up_proj") else "up_proj"
    for expert in sorted(set(top_k_index.flatten().tolist())):
        if expert >= module.num_experts:
            continue
        token, place = torch.where(top_k_index == expert)
        tasks = index if isinstance(index, int) else index[token]
        inner = _apply(module, up, expert, tasks, hidden_states[token], selection)
        inner = module.act_fn(inner) if up == "up_proj" else _gate(module, inner)
        out = _apply(module, "down_proj", expert, tasks, inner, selection)
        if getattr(module, "has_post_expert_norm", False):
            out = module.post_expert_norm(out)
        out = out * top_k_weights[token, place, None]
        made.index_add_(0, token, out.to(made.dtype))
    return made


def _gate(module: Any, inner: torch.Tensor) -> torch.Tensor:
    if hasattr(module, "_apply_gate"):
        made: torch.Tensor = module._apply_gate(inner)
        return made
    gate, up = inner.chunk(2, dim=-1)
    found: torch.Tensor = module.act_fn(gate) * up
    return found


def _apply(
    module: Any,
    name: str,
    expert: int,
    tasks: torch.Tensor | int,
    x: torch.Tensor,
    selection: Selection,
) -> torch.Tensor:
    """One expert on tokens of the given tasks, its bias included."""
    turned = bool(getattr(module, "is_transposed", False))
    made = _of_expert(getattr(module, name), expert, tasks, x, turned, selection)
    bias = getattr(module, f"{name}_bias", None)
    if isinstance(bias, Mixed):
        table = bias.weight
        if table.table is not None:
            return made + table.table[tasks, expert]
        wide = torch.stack([table.full(task)[expert] for task in selection.tasks])
        order = torch.tensor(selection.tasks, device=wide.device)
        place = torch.searchsorted(order, torch.as_tensor(tasks, device=wide.device))
        return made + wide[place]
    return made if bias is None else made + bias[expert]


def _times(x: torch.Tensor, matrix: torch.Tensor, turned: bool) -> torch.Tensor:
    """A product with a matrix whose rows are outputs, or, where it is `turned`, inputs."""
    return torch.matmul(x, matrix) if turned else F.linear(x, matrix)


def _of_expert(
    parameter: torch.Tensor,
    expert: int,
    tasks: torch.Tensor | int,
    x: torch.Tensor,
    turned: bool,
    selection: Selection,
) -> torch.Tensor:
    if not isinstance(parameter, Mixed):
        return _times(x, parameter[expert], turned)
    weight = parameter.weight
    if weight.table is not None:
        own = weight.table[tasks, expert]
        if isinstance(tasks, int):
            return _times(x, own, turned)
        return torch.bmm(x[:, None], own if turned else own.transpose(1, 2))[:, 0]
    if not all(block.factors for block in weight.blocks):
        return _by_task(weight, expert, tasks, x, turned)
    made = _times(x, weight.base[expert], turned)
    for block in weight.blocks:
        for group in block.factors:
            if not group.tasks.isdisjoint(selection.tasks):
                _add(made, x, block.part.place, block.part.turned, group, expert, tasks, turned)
    for task, whole in weight.exact.items():
        mine = torch.as_tensor(tasks, device=x.device).expand(len(x)) == task
        made = torch.where(mine[:, None], _times(x, whole[expert], turned), made)
    return made


def _by_task(
    weight: Weight, expert: int, tasks: torch.Tensor | int, x: torch.Tensor, turned: bool
) -> torch.Tensor:
    """An expert made anew for each task that its tokens have."""
    owners = torch.as_tensor(tasks, device=x.device).expand(len(x))
    made = x.new_empty(len(x), weight.base.shape[2 if turned else 1])
    for task in sorted(set(owners.tolist())):
        mine = owners == task
        made[mine] = _times(x[mine], weight.inner(task, expert), turned)
    return made


def _add(
    made: torch.Tensor,
    x: torch.Tensor,
    place: tuple[int | slice, ...],
    swapped: bool,
    group: Group,
    expert: int,
    tasks: torch.Tensor | int,
    turned: bool,
) -> None:
    """Add what a group's superposition gives one expert, in its part of the outputs."""
    number, first, second = place or (slice(0, None), slice(None), slice(None))
    out, inside = (second, first) if turned else (first, second)
    given, target = x[:, inside], made[:, out]
    # A weight whose rows are inputs, or that was exchanged on its way in (not both).
    turned = turned != swapped
    if not isinstance(number, slice):
        if number == expert:
            target += group.product(given, tasks, turned=turned)
        return
    if not number.start <= expert < (number.stop or expert + 1):
        return
    rows = given.shape[-1] if turned else target.shape[-1]
    at = slice((expert - number.start) * rows, (expert - number.start + 1) * rows)
    down, across = group.down[tasks][..., at], group.across[tasks]
    held = group.held.part(at, x.dtype)
    before, after = (down, across) if turned else (across, down)
    target += held.product(given * before, turned=turned) * after
