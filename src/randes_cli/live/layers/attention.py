"""`nn.MultiheadAttention` for rows of several tasks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.errors import MismatchError
from randes_cli.live.batch.selection import Selection
from randes_cli.live.layers.operations import linear


def attention(
    selection: Selection,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """F.multi_head_attention_forward, whose inputs have time before the batch."""
    unknown = (bias_k, bias_v, static_k, static_v)
    if any(v is not None for v in unknown) or add_zero_attn or query.dim() != 3:
        raise MismatchError(
            "multi_head_attention_forward with keys of its own (add_bias_kv, add_zero_attn), or "
            "without a batch, for several tasks; use randes_cli.Pool"
        )
    if training and dropout_p:
        raise MismatchError("attention with dropout: call model.eval() first")
    if use_separate_proj_weight:
        kinds = (q_proj_weight, k_proj_weight, v_proj_weight)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        parts = [
            linear(selection, x.transpose(0, 1), kind, bias)
            for x, kind, bias in zip((query, key, value), kinds, biases, strict=True)
        ]
    else:
        once = {id(x): x.transpose(0, 1) for x in (query, key, value)}
        done = {k: linear(selection, x, in_proj_weight, in_proj_bias) for k, x in once.items()}
        parts = [done[id(x)].chunk(3, -1)[n] for n, x in enumerate((query, key, value))]
    q, k, v = (_heads(part, num_heads) for part in parts)
    mask = _mask(attn_mask, key_padding_mask, q)
    weights: torch.Tensor | None = None
    if need_weights:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        made = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        made = F.scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal and mask is None)
    answer = linear(selection, made.transpose(1, 2).flatten(-2), out_proj_weight, out_proj_bias)
    return answer.transpose(0, 1), weights


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[n, length, width] → [n, heads, length, width / heads]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _mask(
    attention: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor
) -> torch.Tensor | None:
    """What is added to scores [n, heads, targets, sources]."""
    total = None
    for mask in (attention, padding):
        if mask is None:
            continue
        added = mask.to(q.dtype)
        if mask.dtype == torch.bool:
            added = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf)
        if mask is padding:
            added = added[:, None, None, :]
        elif mask.dim() == 3:
            added = added.reshape(len(q), -1, *added.shape[1:])
        total = added if total is None else total + added
    return total
