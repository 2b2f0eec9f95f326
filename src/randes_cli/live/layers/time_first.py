"""Layers that models give something before the batch, and models that are refused at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from randes_cli.errors import MismatchError
from randes_cli.live.parameters.mixed_parameter import Mixed

#: Models whose rows would be taken for others everywhere, and why.
REFUSED = {
    "xlnet": "puts time before the batch",
    "transfo-xl": "puts time before the batch",
    "qwen4_exp": "compresses the keys of one row after another",
    "qwen4_exp_text": "compresses the keys of one row after another",
}
#: Classes of such models.
_REFUSED_CLASSES = {
    "EfficientLoFTRForKeypointMatching": "puts the matches of several pairs among one another"
}
#: By the end of the module and the name of a layer's class what in it is given [time, batch, …];
#: what is given [time, time, batch, …]. Layers of a decoder that lie before the batch are as time.
_INSIDE = {
    ("longformer.modeling_longformer", "LongformerSelfAttention"): (
        *("query", "key", "value", "query_global", "key_global", "value_global"),
    ),
    ("led.modeling_led", "LEDEncoderSelfAttention"): (
        *("query", "key", "value", "query_global", "key_global", "value_global"),
    ),
    ("dab_detr.modeling_dab_detr", "DabDetrForObjectDetection"): ("bbox_predictor",),
    ("mlcd.modeling_mlcd", "MLCDAttention"): ("out_proj",),
    ("fsmt.modeling_fsmt", "EncoderLayer"): ("",),
    ("fsmt.modeling_fsmt", "DecoderLayer"): ("",),
}
_FAR_INSIDE = {("bros.modeling_bros", "BrosBboxEmbeddings"): ("bbox_projection",)}
#: Layers that give what comes batch first to recurrent layers with time first.
_TURNS = {
    ("encodec.modeling_encodec", "EncodecLSTM"),
    ("wavtokenizer.modeling_wavtokenizer", "WavTokenizerLSTM"),
}


def refuse_known(model: nn.Module) -> None:
    """Raise MismatchError for models that layers could not answer for."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind in REFUSED:
        raise MismatchError(f"{kind} {REFUSED[kind]}; use randes_cli.Pool")
    for name in (parent.__name__ for parent in type(model).__mro__):
        if name in _REFUSED_CLASSES:
            raise MismatchError(f"{name} {_REFUSED_CLASSES[name]}; use randes_cli.Pool")


def recurrent_inside(model: nn.Module) -> Iterator[nn.Module]:
    """Recurrent layers that are known to be given time first, in a model that has the batch so."""
    for layer in model.modules():
        if (_home(layer), type(layer).__name__) in _TURNS:
            yield from (inner for inner in layer.modules() if isinstance(inner, nn.RNNBase))


def batch_first(model: nn.Module) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    """Layers that are given time first, each with a forward for which the batch is first."""
    for layer in model.modules():
        for dim, known in ((1, _INSIDE), (2, _FAR_INSIDE)):
            for inside in known.get((_home(layer), type(layer).__name__), ()):
                for module in layer.get_submodule(inside).modules():
                    if any(isinstance(v, Mixed) for v in module._parameters.values()):
                        yield module, partial(_exchanged, module.forward, dim)


def _home(layer: nn.Module) -> str:
    return ".".join(type(layer).__module__.split(".")[-2:])


def _exchanged(forward: Callable[..., Any], dim: int, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = forward(x.transpose(0, dim))
    return made.transpose(0, dim).contiguous()  # models view it as what it would have been
