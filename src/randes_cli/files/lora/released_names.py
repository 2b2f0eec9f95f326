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
#: Blocks of FLUX; of some modules diffusers has several, whose outputs lie one after another.
_FLUX = re.compile(r"(double|single)_blocks_(\d+)_(.+)")
_DOUBLE = {
    "img_mod_lin": ("norm1_linear",),
    "img_attn_qkv": ("attn_to_q", "attn_to_k", "attn_to_v"),
    "img_attn_proj": ("attn_to_out_0",),
    "img_mlp_0": ("ff_net_0_proj",),
    "img_mlp_2": ("ff_net_2",),
    "txt_mod_lin": ("norm1_context_linear",),
    "txt_attn_qkv": ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj"),
    "txt_attn_proj": ("attn_to_add_out",),
    "txt_mlp_0": ("ff_context_net_0_proj",),
    "txt_mlp_2": ("ff_context_net_2",),
}
_SINGLE = {
    "modulation_lin": ("norm_linear",),
    "linear1": ("attn_to_q", "attn_to_k", "attn_to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}


def layers_of(modules: Collection[str]) -> int:
    """How many residual blocks each block of a UNet has on the way down."""
    first = [m for m in modules if re.fullmatch(r"down_blocks_0_resnets_\d+_conv1", m)]
    ends = [int(m.split("_")[2]) for m in modules if re.fullmatch(r"input_blocks_\d+_0_op", m)]
    return len(first) or min(ends, default=3) - 1


def in_diffusers(flat: str, layers: int) -> tuple[str, ...]:
    """What diffusers calls a module of a model's first release; others as they are.

    `layers`: of a UNet, as of `layers_of`.
    """
    if found := _FLUX.fullmatch(flat):
        double = found[1] == "double"
        start = f"{'' if double else 'single_'}transformer_blocks_{found[2]}"
        inner = (_DOUBLE if double else _SINGLE).get(found[3], ())
        return tuple(f"{start}_{module}" for module in inner) or (flat,)
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
