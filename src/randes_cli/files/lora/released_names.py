"""What modules of diffusion models were called in their first releases, and are in diffusers.

Names here have underscores for dots.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_BLOCKS = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(.+)")
_MIDDLE = re.compile(r"middle_block_([012])_(.+)")
#: Modules of Stable Diffusion's residual blocks, and those around its blocks.
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
_QKV = ("attn_to_q", "attn_to_k", "attn_to_v")
_ADDED = ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj")
#: Blocks of transformers: what a block is called, in diffusers, and what is in it. Where diffusers
#: has several of a module, their outputs lie one after another.
_TRANSFORMERS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    (  # FLUX, HunyuanVideo
        r"double_blocks_(\d+)_",
        "transformer_blocks",
        {
            "img_mod_lin(ear)?": ("norm1_linear",),
            "img_attn_qkv": _QKV,
            "img_attn_proj": ("attn_to_out_0",),
            "img_mlp_(0|fc1)": ("ff_net_0_proj",),
            "img_mlp_(2|fc2)": ("ff_net_2",),
            "txt_mod_lin(ear)?": ("norm1_context_linear",),
            "txt_attn_qkv": _ADDED,
            "txt_attn_proj": ("attn_to_add_out",),
            "txt_mlp_(0|fc1)": ("ff_context_net_0_proj",),
            "txt_mlp_(2|fc2)": ("ff_context_net_2",),
        },
    ),
    (
        r"single_blocks_(\d+)_",
        "single_transformer_blocks",
        {
            "modulation_lin(ear)?": ("norm_linear",),
            "linear1": (*_QKV, "proj_mlp"),
            "linear2": ("proj_out",),
        },
    ),
    (  # Stable Diffusion 3
        r"joint_blocks_(\d+)_",
        "transformer_blocks",
        {
            "x_block_attn_qkv": _QKV,
            "x_block_attn_proj": ("attn_to_out_0",),
            "x_block_attn2_qkv": tuple(f"attn2_to_{x}" for x in "qkv"),
            "x_block_attn2_proj": ("attn2_to_out_0",),
            "x_block_mlp_fc1": ("ff_net_0_proj",),
            "x_block_mlp_fc2": ("ff_net_2",),
            "context_block_attn_qkv": _ADDED,
            "context_block_attn_proj": ("attn_to_add_out",),
            "context_block_mlp_fc1": ("ff_context_net_0_proj",),
            "context_block_mlp_fc2": ("ff_context_net_2",),
        },
    ),
    (  # Wan
        r"blocks_(\d+)_",
        "blocks",
        {
            **{f"self_attn_{x}": (f"attn1_to_{x}",) for x in "qkv"},
            **{f"cross_attn_{x}": (f"attn2_to_{x}",) for x in "qkv"},
            **{f"cross_attn_{x}_img": (f"attn2_add_{x}_proj",) for x in "kv"},
            "self_attn_o": ("attn1_to_out_0",),
            "cross_attn_o": ("attn2_to_out_0",),
            "ffn_0": ("ffn_net_0_proj",),
            "ffn_2": ("ffn_net_2",),
        },
    ),
)


def layers_of(modules: Collection[str]) -> int:
    """How many residual blocks each block of a UNet has on the way down."""
    first = [m for m in modules if re.fullmatch(r"down_blocks_0_resnets_\d+_conv1", m)]
    ends = [int(m.split("_")[2]) for m in modules if re.fullmatch(r"input_blocks_\d+_0_op", m)]
    return len(first) or min(ends, default=3) - 1


def in_diffusers(flat: str, layers: int) -> tuple[str, ...]:
    """What diffusers calls a module of a model's first release; others as they are.

    `layers`: of a UNet, as of `layers_of`.
    """
    for block, theirs, modules in _TRANSFORMERS:
        for module, several in modules.items():
            if found := re.fullmatch(block + module, flat):
                return tuple(f"{theirs}_{found[1]}_{one}" for one in several)
    return (_in_unet(flat, layers),)


def _in_unet(flat: str, layers: int) -> str:
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
