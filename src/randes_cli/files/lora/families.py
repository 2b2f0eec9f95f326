"""Families of models: what their files call weights, and what the model in memory calls them.

As transformers' own table of conversions has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_ATTENTION = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
#: Where PI0 has its language model.
_TEXT = "model.vlm.language_model."
#: Pieces of a weight.
_QKV = "[q_proj,k_proj,v_proj]"
#: Words of stored names, and what the modules are called instead. All of a family are put in, in
#: this order. What the model has in pieces by rows is several in brackets: `[q_proj,k_proj]`.
_FAMILIES: tuple[tuple[tuple[str, str], ...], ...] = (
    # Mixtral, MiniMax
    ((r"\.block_sparse_moe\.", ".mlp."),),
    # PhiMoE
    ((r"\.block_sparse_moe\.gate\.", ".mlp.router."),),
    # GraniteMoE
    (
        (r"\.input_linear\.weight$", ".experts.gate_up_proj"),
        (r"\.output_linear\.weight$", ".experts.down_proj"),
        (r"\.router\.layer\.", ".router."),
    ),
    # GPT-NeoX
    ((r"^embed_out\.", "lm_head."),),
    # HYV3, HYV4, LFM3, GLM 5 Next
    ((r"\.mlp\.shared_mlp\.", ".mlp.shared_experts."),),
    ((r"\.linear_gate\.", ".gate_proj."),),
    ((r"\.self_attn\.gate_proj\.", ".self_attn.g_proj."),),
    ((r"\.self_attn\.f_([ab])_proj\.", r".self_attn.forget_gate.f_\1_proj."),),
    # HunYuan's eye
    (
        (r"\.dense_h_to_4h\.", ".fc1."),
        (r"\.dense_4h_to_h\.", ".fc2."),
        (r"\.perceive\.proj\.0\.", ".perceive.proj_conv."),
        (r"\.perceive\.proj\.2\.", ".perceive.proj_out."),
        (r"\.perceive\.", ".patch_merger."),
    ),
    # BERT, ESM and others of the first years
    ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    # Wav2Vec2, HuBERT, WavLM, EnCodec …: torch's weight norm, before and since it parametrizes
    (
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    ),
    # VideoMAE
    ((r"\.q_bias$", ".query.bias"), (r"\.v_bias$", ".value.bias")),
    # ViT, DeiT, BEiT, AST, ViTMAE, ViViT, I-JEPA
    (
        (r"(^|\.)encoder\.layer\.", r"\1layers."),
        *((rf"\.attention\.attention\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
    # DINOv2
    (
        *((rf"\.attention\.attention\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.weights_in\.", ".mlp.[gate_proj,up_proj]."),
        (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
    ),
    # Swin
    (
        *((rf"\.attention\.self\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
    # SegFormer
    (
        (r"(^|\.)encoder\.patch_embeddings\.(\d+)\.", r"\1stages.\2.patch_embeddings."),
        (r"(^|\.)encoder\.block\.(\d+)\.", r"\1stages.\2.blocks."),
        (r"(^|\.)encoder\.layer_norm\.(\d+)\.", r"\1stages.\2.layer_norm."),
        *((rf"\.attention\.self\.{old}\.", f".attention.{new}.") for old, new in _ATTENTION),
        (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
        (r"\.layer_norm_1\.", ".layernorm_before."),
        (r"\.layer_norm_2\.", ".layernorm_after."),
        (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
        (r"(^|\.)decode_head\.linear_c\.", r"\1decode_head.linear_projections."),
    ),
    # DETR and its kin
    (
        (r"\.out_proj\.", ".o_proj."),
        (r"\.layers\.(\d+)\.fc([12])\.", r".layers.\1.mlp.fc\2."),
    ),
)

#: Families whose words many models have, by one that they alone have.
_MARKED: dict[str, tuple[tuple[str, str], ...]] = {
    # GTE
    r"\.mlp\.up_gate_proj\.": (
        (r"(^|\.)encoder\.layer\.", r"\1layers."),
        (r"\.attention\.o_proj\.", ".self_attn.o_proj."),
        (r"\.attention\.qkv_proj\.", f".self_attn.{_QKV}."),
        (r"\.mlp\.up_gate_proj\.", ".mlp.[up_proj,gate_proj]."),
        (r"\.attn_ln\.", ".post_attention_layernorm."),
        (r"\.mlp_ln\.", ".post_mlp_layernorm."),
    ),
    # Nomic's BERT
    r"\.attn\.Wqkv\.": (
        (r"(^|\.)encoder\.layers\.", r"\1layers."),
        (r"(^|\.)emb_ln\.", r"\1embeddings.LayerNorm."),
        (r"\.attn\.Wqkv\.", f".self_attn.{_QKV}."),
        (r"\.attn\.out_proj\.", ".self_attn.o_proj."),
        (r"\.mlp\.fc11\.", ".mlp.up_proj."),
        (r"\.mlp\.fc12\.", ".mlp.gate_proj."),
        (r"\.mlp\.fc2\.", ".mlp.down_proj."),
        (r"\.norm1\.", ".post_attention_layernorm."),
        (r"\.norm2\.", ".post_mlp_layernorm."),
    ),
    # Jina's third embeddings
    r"\.mixer\.Wqkv\.": (
        (r"(^|\.)encoder\.layers\.", r"\1layers."),
        (r"(^|\.)emb_ln\.", r"\1embeddings.LayerNorm."),
        (r"\.mixer\.Wqkv\.", f".self_attn.{_QKV}."),
        (r"\.mixer\.out_proj\.", ".self_attn.o_proj."),
        (r"\.norm1\.", ".post_attention_layernorm."),
        (r"\.norm2\.", ".post_mlp_layernorm."),
    ),
    # RADIO
    r"radio_model\.model\.blocks\.": (
        (r"radio_model\.model\.blocks\.", "encoder.layer."),
        (
            r"radio_model\.model\.patch_generator\.(video_)?embedder\.",
            r"embeddings.\1patch_projection.",
        ),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.attn\.qkv\.", f".attention.{_QKV}."),
    ),
    # Qianfan-OCR
    r"^mlp1\.1\.": (
        (r"(^|\.)encoder\.layers\.", r"\1layers."),
        (r"\.attn\.qkv\.", f".attention.{_QKV}."),
        (r"\.attn\.proj\.", ".attention.projection_layer."),
        (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
        (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
    ),
    # RT-DETR's kin
    r"(^|\.)encoder\.encoder\.\d+\.layers\.": (
        (r"\.out_proj\.", ".o_proj."),
        (r"\.layers\.(\d+)\.fc([12])\.", r".layers.\1.mlp.fc\2."),
        (r"(^|\.)encoder\.encoder\.", r"\1encoder.aifi."),
    ),
    # D-FINE
    r"\.gateway\.gate\.": (
        (r"\.out_proj\.", ".o_proj."),
        (r"\.layers\.(\d+)\.fc1\.", r".layers.\1.mlp.layers.0."),
        (r"\.layers\.(\d+)\.fc2\.", r".layers.\1.mlp.layers.1."),
        (r"(^|\.)encoder\.encoder\.", r"\1encoder.aifi."),
    ),
    # HyperCLOVA X, LFM3-VL, ERNIE 4.5 VL
    r"\.vision_projector\.": ((r"\.vision_projector\.", ".projector."),),
    r"(^|\.)patchifier\.": ((r"(^|\.)patchifier\.", r"\1patch_embed."),),
    r"\.spatial_linear\.0\.": (
        (r"\.(spatial|temporal)_linear\.0\.", r".\1_linear.fc1."),
        (r"\.(spatial|temporal)_linear\.2\.", r".\1_linear.fc2."),
    ),
    # UltraBERT, Laguna, TimesFM 2.5
    r"^ultrabert\.": ((r"^ultrabert\.", "model."), (r"^cls\.", "head.decoder.")),
    r"\.shared_expert\.": ((r"\.shared_expert\.", ".shared_experts."),),
    r"\.ff0\.": ((r"\.ff0\.", ".fc1."), (r"\.ff1\.", ".fc2.")),
    # A.X-K2
    r"\.W_down\.": (
        (r"\.W_down\.", ".mlp.fc1."),
        (r"\.W_up\.", ".mlp.fc2."),
        (r"\.q_b_proj\.", ".q_gate_proj."),
    ),
    # Ling
    r"\.attention\.f_proj\.": (
        (r"(^|\.)word_embeddings\.", r"\1embed_tokens."),
        (r"\.attention\.dense\.", ".attention.o_proj."),
        (r"\.attention\.f_proj\.", ".attention.forget_gate.f_proj."),
        (r"\.attention\.", ".self_attn."),
    ),
    # DeepSeek V4
    r"\.attn\.wq_a\.": (
        (r"\.attn\.indexer\.compressor\.", ".self_attn.compressor.indexer."),
        (r"\.attn\.indexer\.wq_b\.", ".self_attn.compressor.indexer.q_b_proj."),
        (r"\.attn\.indexer\.weights", ".self_attn.compressor.indexer.scorer.weights"),
        (r"\.attn\.", ".self_attn."),
        (r"\.ffn\.", ".mlp."),
        (r"(^|\.)embed\.", r"\1embed_tokens."),
        (r"^head\.", "lm_head."),
        (r"\.w(q_[ab]|kv|o_[ab])\.", r".\1_proj."),
        (r"\.wgate\.", ".gate_proj."),
        (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
        (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
        (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
    ),
    # Cohere's speech recognition
    r"transf_decoder\.": (
        (r"encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
        (r"\.linear_([qkv])\.", r".\1_proj."),
        (r"\.linear_out\.", ".o_proj."),
        (r"\.linear_pos\.", ".relative_k_proj."),
        (r"transf_decoder\._embedding\.token_embedding\.", "decoder.embed_tokens."),
        (r"transf_decoder\._decoder\.layers\.", "decoder.layers."),
        (r"(^|\.)encoder_decoder_proj\.", r"\1decoder.proj."),
        (r"\.first_sub_layer\.", ".self_attn."),
        (r"\.second_sub_layer\.", ".encoder_attn."),
        *((rf"\.{old}_net\.", f".{new}.") for old, new in _ATTENTION),
        (r"\.out_projection\.", ".o_proj."),
        (r"\.third_sub_layer\.dense_in\.", ".mlp.fc1."),
        (r"\.third_sub_layer\.dense_out\.", ".mlp.fc2."),
        (r"^log_softmax\.mlp\.layer0\.", "proj_out."),
    ),
    # Cosmos 3's Edge
    r"^layers\.\d+\.mlp\.up_proj\.": (
        (r"^(layers|embed_tokens|norm)\.", r"model.language_model.\1."),
        (r"\.self_attn\.to_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.self_attn\.to_out\.", ".self_attn.o_proj."),
        (r"\.mlp\.up_proj\.", ".mlp.fc1."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    ),
    # Cosmos 3
    r"^layers\.\d+\.self_attn\.to_q\.": (
        (r"^(layers|embed_tokens|norm)\.", r"model.language_model.\1."),
        (
            r"^(blocks|merger|patch_embed|pos_embed|deepstack_merger_list)\.",
            r"model.visual.\1.",
        ),
        (r"\.self_attn\.to_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.self_attn\.to_out\.", ".self_attn.o_proj."),
        (r"\.self_attn\.norm_([qk])\.", r".self_attn.\1_norm."),
    ),
    # PI0
    r"^paligemma_with_expert\.": (
        (r"^paligemma_with_expert\.paligemma\.model\.language_model\.model\.", _TEXT),
        (r"^paligemma_with_expert\.paligemma\.model\.", "model.vlm."),
        (r"^paligemma_with_expert\.gemma_expert\.lm_head\.", "model.dit.embed_tokens."),
        (r"^paligemma_with_expert\.gemma_expert\.model\.", "model.dit."),
        (r"^((state|action_in)_proj|action_time_mlp_(in|out))\.", r"embed_action_time.\1."),
    ),
}

#: Numbers that no words here tell from one another, and that all leave in their order.
_NUMBER = re.compile(r"(?<=\.)\d{2,}(?=\.)")


class Piece(NamedTuple):
    """Some of a stored weight's rows: number `place` of `pieces` that are as many."""

    place: int
    pieces: int

    def rows(self, whole: int) -> tuple[int, int]:
        """The first of its rows and the one behind its last, of `whole`."""
        high = whole // self.pieces
        return self.place * high, (self.place + 1) * high


def aliases(names: Iterable[str]) -> dict[str, str]:
    """Stored names by what a model may call them; none that stands for two, nor for a piece."""
    made: dict[str, str] = {}
    twice = set[str]()
    for name, other in _renamed(names):
        if "[" not in other and made.setdefault(other, name) != name:
            twice.add(other)
    return {other: name for other, name in made.items() if other not in twice}


def pieces(names: Iterable[str]) -> dict[str, tuple[str, Piece]]:
    """The stored name, and which piece of it, by what a model calls that piece."""
    made = {}
    for name, other in _renamed(names):
        before, bracket, rest = other.partition("[")
        inside, _, after = rest.partition("]")
        parts = inside.split(",") if bracket else []
        for place, part in enumerate(parts):
            made[f"{before}{part}{after}"] = (name, Piece(place, len(parts)))
    return made


def _renamed(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Stored names, and what a family calls them: once for all layers and experts."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_NUMBER.sub("10", name), []).append(name)
    marked = (one for mark, one in _MARKED.items() if any(map(re.compile(mark).search, alike)))
    families = [*_FAMILIES, *marked]
    for form, some in alike.items():
        for family in families:
            other = form
            for words, instead in family:
                other = re.sub(words, instead, other)
            for name in some if other != form else ():
                numbers = (*_NUMBER.findall(name), "")
                parts = zip(_NUMBER.split(other), numbers, strict=True)
                yield name, "".join(part + number for part, number in parts)
