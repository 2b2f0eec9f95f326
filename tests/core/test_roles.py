"""Which tensors are statistics or constants: names of real modules, and modules themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from randes_cli.core.roles import exact_roles
from randes_cli.specs import TensorInfo

#: Names and shapes as libraries write them: buffers of transformers, timm, diffusers and others.
EXACT: dict[str, tuple[int, ...]] = {
    "bn1.running_mean": (64,),
    "bn1.running_var": (64,),
    "moving_variance": (64,),
    "ema_backbone_layer1_0_bn1_running_var": (64,),
    "quantizer.layers.0.codebook.cluster_size": (1024,),
    "quantizer.layers.0.codebook.embed": (1024, 128),
    "quantizer.layers.0.codebook.embed_avg": (1024, 128),
    "quantizer.layers.0.codebook.embed_sum": (1024, 128),
    "quantizer.layers.0.codebook.cluster_usage": (1024,),
    "vq._ema_cluster_size": (512,),
    "encoder.conv.weight_g": (64, 1, 1),
    "encoder.pos_conv.parametrizations.weight.original0": (1, 1, 128),
    "model.rotary_emb.inv_freq": (64,),
    "model.rotary_emb.original_inv_freq": (64,),
    "rotary.inv_freq": (32,),
    "freqs_cis": (2048, 64),
    "rope.cos_cached": (2048, 64),
    "pos.sin": (10, 32),
    "embeddings.position_ids": (1, 512),
    "h.0.attn.embed_positions": (2048, 64),
    "model.encoder.embed_positions.weights": (1026, 64),
    "shared_image_embedding.positional_embedding": (2, 128),
    "pe_layer.positional_encoding_gaussian_matrix": (2, 128),
    "pos_embed.pos_embed": (1, 96, 64),
    "transformer/pos_embed.pos_embed": (1, 96, 64),
    "image_normalizer/mean": (1, 768),
    "vae/latents_std": (16,),
    "layers.0.blocks.0.attn.relative_coords_table": (1, 15, 15, 2),
    "layers.0.blocks.1.attn_mask": (4, 49, 49),
    "model.layers.0.mlp.down_proj.weight_scale": (64, 1),
    "model.layers.0.mlp.down_proj.weight_scale_inv": (8, 8),
    "model.layers.0.self_attn.k_scale": (8,),
    "layers.0.qzeros": (8, 64),
    "layers.0.scales": (8, 64),
    "conv.weight_fake_quant.scale": (64,),
    "conv.weight_fake_quant.zero_point": (64,),
    "conv.activation_post_process.min_val": (64,),
    "model.layers.3.mlp.gate.e_score_correction_bias": (64,),
    "model.layers.3.mlp.expert_bias": (64,),
    "model.layers.3.feed_forward.expert_bias": (64,),
    "layers.3.moe.tokens_per_expert": (64,),
    "quantizer.rvq_first.layers.0._codebook.embedding_sum": (64, 32),
    "quantizer.code_sum": (64, 32),
    "quantizer.code_count": (64,),
    "bottleneck.level_blocks.0.k_sum": (64, 32),
    "generator.mapping.w_avg": (512,),
    "model.memory_bank": (64, 32),
    "layers.0.attn.fast_attention.projection_matrix": (266, 64),
    "atomic_energies_fn.atomic_energies": (1, 89),
    "scale_shift.shift": (2,),
    "alphas_cumprod": (1000,),
    "sqrt_one_minus_alphas_cumprod": (1000,),
    "posterior_mean_coef1": (1000,),
    "betas": (1000,),
    "model.pixel_mean": (3, 1, 1),
    "model.vision_tower.std_scale": (64,),
    "mel_converter.mel_basis": (80, 513),
    "frontend.mel_scale.fb": (513, 80),
    "normalize_inputs.buffer_observation_state.mean": (6,),
    "unnormalize_outputs.buffer_action.std": (6,),
    "normalizer.params_dict.action.scale": (6,),
    "normalizer.params_dict.obs.input_stats.max": (6,),
    "image_normalizer.mean": (1, 768),
    "target_scaler.std": (8,),
    "obs_rms.var": (17,),
    "queue": (128, 4096),
    "layers.0.attn.logit_scale": (4, 1, 1),
    "stages.1.blocks.2.xca.temperature": (8, 1, 1),
    "layers.1.self_attn.slope_rate": (32, 1, 1),
}
WEIGHTS: dict[str, tuple[int, ...]] = {
    "blocks.0.normalizer.scale": (64,),
    "blocks.0.post_rms.scale": (64,),
    "heads.mean": (64, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "h.0.ln_1.bias": (64,),
    "norm.scale": (64,),
    "blocks.0.ls1.gamma": (64,),
    "blocks.0.gamma_1": (64,),
    "encoder.conv.weight_v": (64, 64, 3),
    "encoder.pos_conv.parametrizations.weight.original1": (64, 4, 128),
    "pos_embed": (1, 197, 64),
    "pos_embed_window": (1, 96, 8, 8),
    "positional_embedding": (77, 64),
    "cls_token": (1, 1, 64),
    "mask_token": (1, 1, 64),
    "masked_spec_embed": (64,),
    "embeddings.position_embeddings.weight": (512, 64),
    "model.embed_positions.weight": (1026, 64),
    "relative_attention_bias.weight": (32, 8),
    "relative_position_bias_table": (169, 4),
    "quantize.embedding.weight": (1024, 64),
    "mixer.A_log": (64, 16),
    "mixer.dt_bias": (64,),
    "mixer.D": (64,),
    "lora_magnitude_vector": (64,),
    "lm_head.weight": (100, 64),
    "attn.c_attn.weight": (64, 192),
    "h.0.attn.bias": (1, 1, 64, 64),
    "window_attention.qkv.weight": (192, 64),
    "time_embed.freq_proj.weight": (64, 64),
}


def infos(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", EXACT)
def test_statistics_and_constants_are_told_by_their_names(name: str) -> None:
    assert list(exact_roles(infos({name: EXACT[name]}))) == [name]


@pytest.mark.parametrize(
    "pair",
    [
        ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd"),
        ("gaussian.mean", "gaussian.inv_covariance"),
        ("gmm.means", "gmm.covariances"),
        ("quantize.codebook_mean", "quantize.codebook_variance"),
        ("vae/_latents_mean", "vae/_latents_std"),
        ("data_mean", "data_std"),
        ("vae.stats.mean-of-means", "vae.stats.std-of-means"),
        ("scaler.data_min_", "scaler.data_max_"),
        ("scaler.mean_", "scaler.scale_"),
    ],
)
def test_a_mean_and_a_spread_of_one_name_are_of_data(pair: tuple[str, str]) -> None:
    both = infos(dict.fromkeys(pair, (8,)))
    assert list(exact_roles(both)) == list(pair)
    assert not any(exact_roles({name: both[name]}) for name in pair)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_norms_and_biases_are_none(name: str) -> None:
    assert not exact_roles(infos({name: WEIGHTS[name]}))


def test_means_and_spreads_of_weights_are_trained() -> None:
    names = ("fc.weight_mean", "fc.weight_std", "fc.w_mean", "fc.w_var", "a.mean", "b.std")
    assert not exact_roles(infos(dict.fromkeys(names, (8, 8))))


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made: nn.Module = BertModel(BertConfig(vocab_size=20, intermediate_size=16, **sizes))
    return made


def encodec() -> nn.Module:
    from transformers import EncodecConfig, EncodecModel

    made: nn.Module = EncodecModel(
        EncodecConfig(
            num_filters=4, hidden_size=16, codebook_size=8, codebook_dim=16, num_lstm_layers=1
        )
    )
    return made


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    made: nn.Module = ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    )
    return made


def transformer_2d() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    made: nn.Module = SD3Transformer2DModel(
        sample_size=8,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )
    return made


MODULES: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "encodec": encodec,
    "resnet": resnet,
    "sd3": transformer_2d,
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "instance norm": lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    "spectral norm": lambda: torch.nn.utils.spectral_norm(nn.Linear(4, 6)),
    "spectral norm, new": lambda: parametrizations.spectral_norm(nn.Linear(4, 6)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_what_is_no_parameter_of_a_module_is_exact_and_its_weights_are_not(kind: str) -> None:
    module = MODULES[kind]()
    parameters = {name for name, value in module.named_parameters() if value.requires_grad}
    state = {
        name: tuple(value.shape)
        for name, value in module.state_dict().items()
        if value.is_floating_point() and value.numel() > 1
    }
    found = exact_roles(
        {n: TensorInfo(n, "F32", tuple(v.shape)) for n, v in module.state_dict().items()}
    )
    buffers = state.keys() - dict(module.named_parameters(remove_duplicate=False)).keys()
    assert buffers <= found.keys()
    lengths = {name for name in parameters if name.endswith(("original0", "weight_g", "scale"))}
    assert not (found.keys() & state.keys() & parameters) - lengths


@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, parametrizations.weight_norm])
def test_of_a_weight_norm_the_lengths_are_exact_and_the_directions_are_weights(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    state = wrap(nn.Conv1d(4, 6, 3)).state_dict()
    found = exact_roles({n: TensorInfo(n, "F32", tuple(v.shape)) for n, v in state.items()})
    assert [name for name in found if state[name].numel() != 6] == []
    assert len(found) == 1


def test_a_batch_norm_that_counts_no_batches_is_frozen() -> None:
    names = ["weight", "bias", "running_mean", "running_var"]
    frozen = {f"bn1.{name}": (8,) for name in names}
    assert exact_roles(infos(frozen)).keys() == frozen.keys()
    trained = {**frozen, "bn1.num_batches_tracked": ()}
    assert "bn1.weight" not in exact_roles(infos(trained))
