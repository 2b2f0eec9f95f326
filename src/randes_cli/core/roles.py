"""Tensors that are no weights: statistics and constants, which noise would break.

Interference is noise that a network averages out over the inputs of a layer. A variance, a
frequency or a counter is used as it is: BatchNorm's `running_var` with noise is negative somewhere,
and its root is not a number. Such tensors are told by their names, for a checkpoint does not say
what a tensor is for. Ordinary norms, biases, embeddings and learned codebooks are weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache

from randes_cli.specs import TensorInfo

STATISTICS = "a running statistic"
CODEBOOK = "the usage of a codebook"
NORM = "of a weight norm"
POSITIONS = "a table of positions or frequencies"
QUANTISATION = "a scale of quantised values"
CONSTANT = "a constant"
TEMPERATURE = "a temperature"

#: Roles by the last part of a name. Making these patterns takes 10 ms: they wait for such a name.
_LEAVES: Mapping[str, str] = {
    STATISTICS: (
        r"(\w+_)?(running|moving)_\w+|num_batches_tracked|num_updates|ema_decay|min_vals?|max_vals?"
        r"|histogram|\w*_?queue(_ptr)?|(e_score_)?correction_bias|balancing_biases|expert_bias"
        r"|\w*tokens_per_expert|w_avg|latent_avg|magnitude_ema|precision_matrix"
        r"|memory_bank|whitening_matrix|singular_vectors"
    ),
    CODEBOOK: (
        r"_?(ema_)?cluster_(size|usage)|embed(ding)?_(avg|sum)|_?ema_w|codebook_usage"
        r"|code_(sum|count)|k_(sum|elem)|ema_(count|weight)|initt?ed|initialized"
    ),
    NORM: r"weight_u|_u",
    POSITIONS: (
        r"(\w+_)?inv_freqs?|(rope_)?freqs_(cis|cos|sin)|freqs|(cos|sin)(_?cached)?|sinusoid\w*"
        r"|\w*position_ids|relative_(position_index|coords_table)|embed_positions|pe"
        r"|positional_encoding_gaussian_matrix|timesteps?|pos_idx_to_embed"
    ),
    QUANTISATION: (
        r"(\w+_)?(scale_inv|zero_points?|absmax|quant_map|scaling_factor)|scales|qzeros|scb"
        r"|(weight|input|output|act|activation|bias|[kqv]|kv|qkv)_scales?|(weight|bias)_integer"
    ),
    CONSTANT: (
        r"\w*mask(ed_bias)?|(pixel|image|latents?|global|norm)_(mean|std|invstd)|mel_(filters?|basis)"
        r"|(\w*(hann|fft)_)?window|betas|sigmas|posterior_\w+|lvlb_weights|anchors?"
        r"|(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?"
        r"|n(um)?_points_scale|slope_rate|(query|key|diagonal)_decay|std_(bias|scale)"
    ),
    TEMPERATURE: r"logit_(scale|bias)|temperature",
}
#: Roles by the last two parts of a name.
_ENDS: Mapping[str, str] = {
    CODEBOOK: r"_?codebook\.embed",
    POSITIONS: (
        r"embed_positions\.weights|shared_(image_)?embedding\.positional_embedding"
        r"|embeddings\.position_embedding|pos_embed\.pos_embed|patch_embed\.pos_embedding"
    ),
    QUANTISATION: r"(\w*quant\w*|activation_post_process\w*)\.scale",
    CONSTANT: (
        r"\w*transform\.weights|vocoder\.(mean|scale)|mel_scale\.fb"
        r"|fast_attention\.projection_matrix|atomic_energies_fn\.atomic_energies"
        r"|energy_shifter\.self_energies|(scale_shift|per_species_rescale)\.(scale|shift)s?"
    ),
}

#: What a mean of data lies beside, and a least value beside the largest: of one pattern of names.
_SPREADS = (
    *("std", "stdev", "stddev", "istd", "invstd", "var", "variance"),
    *("scale", "inv_covariance", "covariance"),
)
_MATES = {
    "mean": _SPREADS,
    **dict.fromkeys(_SPREADS, ("mean",)),
    "means": ("covariances",),
    "covariances": ("means",),
    "min": ("max",),
    "max": ("min",),
}
_FIGURE = rf"(|.*[_-])({'|'.join(_MATES)})(|[_-].*)"
#: Statistics of a data set that inputs and actions are normalised by (robotics, time series), and
#: the modules that hold them.
_FIGURES = frozenset(
    ("mean", "std", "stddev", "var", "min", "max", "count", "scale", "offset", "q01", "q99")
)
_NORMALISER = (
    r"(?:.*\.)?(?:(?:\w+_)?(?:un)?normali[sz]e\w*|\w*scaler|(?:obs|ret|value)_rms|buffer_\w+)"
    r"(?:\..*)?"
)


def exact_roles(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The statistics and constants among tensors, by name, each with what it is."""
    found = ((name, _role(tensor, tensors)) for name, tensor in tensors.items())
    return {name: role for name, role in found if role is not None}


def _role(tensor: TensorInfo, names: Collection[str]) -> str | None:
    name = tensor.name.lower().replace("/", ".")  # a component is a module, too
    parts = name.rsplit(".", 2)
    leaf = parts[-1]
    if leaf in ("weight_g", "original0"):  # lengths of rows or columns; the directions are weights
        return NORM if sum(size > 1 for size in tensor.shape) <= 1 else None
    if leaf in ("weight_v", "_v"):  # of a spectral norm; a weight norm calls its weight so
        return NORM if f"{tensor.name[:-1]}u" in names else None
    if leaf in ("weight", "bias"):  # nearly all names
        return CONSTANT if _of_frozen_norm(tensor.name, names) else None
    found = _by_leaf(leaf) or _by_end(".".join(parts[-2:]))
    return found or (STATISTICS if _of_data(name) or _has_mate(tensor.name, names) else None)


def _has_mate(name: str, names: Collection[str]) -> bool:
    """Whether a tensor is the mean or the spread of data: the other of them lies beside it.

    Means and deviations of weights (of a Bayesian layer) are trained.
    """
    start = max(name.rfind("."), name.rfind("/")) + 1
    return any(f"{name[:start]}{mate}" in names for mate in _mates(name[start:]))


@cache
def _mates(leaf: str) -> tuple[str, ...]:
    """What may be called the mean where this is a spread, or the other way round."""
    found = re.fullmatch(_FIGURE, leaf)
    if found is None or leaf.startswith(("weight", "bias", "w_", "b_")):
        return ()
    before, word, after = found.groups()
    return tuple(f"{before}{mate}{after}" for mate in _MATES[word])


def _of_data(name: str) -> bool:
    """Whether a tensor is a figure of a data set: of a scale, where a table of them says so."""
    module, _, leaf = name.rpartition(".")
    if leaf not in _FIGURES or (leaf in ("scale", "offset") and "params_dict" not in module):
        return False
    return bool(re.fullmatch(_NORMALISER, module))


def _of_frozen_norm(name: str, names: Collection[str]) -> bool:
    """Whether a tensor belongs to a batch norm that counts no batches: it is not trained."""
    module = name.rpartition(".")[0]
    return f"{module}.running_var" in names and f"{module}.num_batches_tracked" not in names


@cache
def _by_leaf(leaf: str) -> str | None:
    """Models have many tensors of few last names."""
    return next((role for role, found in _LEAVES.items() if re.fullmatch(found, leaf)), None)


@cache
def _by_end(end: str) -> str | None:
    return next((role for role, found in _ENDS.items() if re.fullmatch(found, end)), None)
