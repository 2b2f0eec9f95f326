"""Recurrent layers, where the rows of each task are run alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from randes_cli.errors import MismatchError
from randes_cli.live.batch.selection import Selection
from randes_cli.live.parameters.mixed_parameter import HANDLERS, of_task

_LAYERS = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_CELLS = (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)


def forward(module: nn.RNNBase, given: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
    """The layer's forward, for which a device's library does not move weights to one memory."""
    module.__dict__["flatten_parameters"] = lambda: None
    try:
        return given(*inputs, **more)
    finally:
        del module.__dict__["flatten_parameters"]


def _layer(func: Callable[..., Any]) -> Callable[..., Any]:
    """torch.lstm and its kin: an input with time, states [layers, n, width], weights, settings.

    Their last setting says whether the batch is first.
    """

    def run(selection: Selection, x: torch.Tensor, states: Any, weights: Any, *more: Any) -> Any:
        if isinstance(states, torch.Tensor) and states.dim() == 1:  # how many rows go on
            raise MismatchError("a packed sequence given to a recurrent layer; use randes_cli.Pool")
        own = list(states) if isinstance(states, (list, tuple)) else [states]
        batch = 0 if more[-1] else 1

        def alone(task: int, x: torch.Tensor, *own: torch.Tensor) -> Any:
            given = own if isinstance(states, (list, tuple)) else own[0]
            return func(x, given, [of_task(weight, task) for weight in weights], *more)

        dims = [batch, *[1] * len(own)]
        return _by_task(selection, alone, [x, *own], dims, dims)

    return run


def _cell(func: Callable[..., Any]) -> Callable[..., Any]:
    """torch.lstm_cell and its kin: a step's input [n, width], states [n, width], weights."""

    def run(selection: Selection, x: torch.Tensor, states: Any, *weights: Any) -> Any:
        several = isinstance(states, (list, tuple))
        own = list(states) if several else [states]

        def alone(task: int, x: torch.Tensor, *own: torch.Tensor) -> Any:
            given = own if several else own[0]
            return func(x, given, *[of_task(weight, task) for weight in weights])

        return _by_task(selection, alone, [x, *own], [0] * (1 + len(own)), [0] * len(own))

    return run


def _by_task(
    selection: Selection,
    run: Callable[..., Any],
    given: Sequence[torch.Tensor],
    dims: Sequence[int],
    made_dims: Sequence[int],
) -> Any:
    """`run` for the rows of each task, which are in these dimensions of what is given and made."""
    if selection.only is not None:
        return run(selection.only, *given)
    count = given[0].shape[dims[0]]
    if selection.index.dim() > 1 or count % selection.rows:
        raise MismatchError(
            f"a recurrent layer is given {list(given[0].shape)}, whose {count} lines are not rows "
            "of the batch; use randes_cli.Pool"
        )
    at = [selection.positions(count, [task]).to(given[0].device) for task in selection.tasks]
    done = []
    for task, rows in zip(selection.tasks, at, strict=True):
        mine = [value.index_select(dim, rows) for value, dim in zip(given, dims, strict=True)]
        made = run(task, *mine)
        done.append(made if isinstance(made, tuple) else (made,))
    order = torch.cat(at).argsort()
    whole = tuple(
        torch.cat(parts, dim).index_select(dim, order)
        for parts, dim in zip(zip(*done, strict=True), made_dims, strict=True)
    )
    return whole if len(whole) > 1 else whole[0]


HANDLERS.update({func: _layer(func) for func in _LAYERS})
HANDLERS.update({func: _cell(func) for func in _CELLS})
