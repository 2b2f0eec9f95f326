"""The levels of a sealed superposition, and what cutting to them costs.

A superposition divided by its scales is nearly Gaussian: it is a sum of many deltas with
independent signs. Levels for 1 to 4 bits are those of Lloyd and Max for a standard Gaussian,
the means of their cells. With 8 bits the cells are so fine that only tails matter: those levels
are of Lloyd and Max for a Laplace density of unit variance, which reach 10 standard deviations
(4.6 for the Gaussian's) and cost a Gaussian 0.00006 of its variance in place of 0.00004.
"""

from __future__ import annotations

import numpy as np

from randes_cli.core.arrays import F32

#: Bits that a superposition can be sealed to.
SEAL_BITS = (1, 2, 3, 4, 8)

#: Mean square error of a standard Gaussian that is cut to these bits.
DISTORTION = {
    1: 0.36338023,
    2: 0.11748185,
    3: 0.034547761,
    4: 0.009501008,
    8: 0.000058531,
}

#: The positive half of the levels, in standard deviations.
# fmt: off
_POSITIVE = {
    1: (0.79788456,),
    2: (0.45278003, 1.5104176),
    3: (0.24509418, 0.75600528, 1.3439093, 2.1519457),
    4: (0.12839503, 0.3880483, 0.65675912, 0.94234046, 1.2562312, 1.6180464, 2.0690172, 2.7325896),
    8: (
        0.0082499539, 0.024879207, 0.041639849, 0.058533974, 0.075563723, 0.092731293, 0.11003893,
        0.12748895, 0.1450837, 0.1628256, 0.18071715, 0.19876088, 0.2169594, 0.2353154, 0.25383162,
        0.27251089, 0.29135611, 0.31037024, 0.32955634, 0.34891756, 0.36845711, 0.38817832,
        0.40808459, 0.42817943, 0.44846645, 0.46894936, 0.48963197, 0.51051822, 0.53161217,
        0.55291797, 0.57443994, 0.5961825, 0.61815023, 0.64034782, 0.66278015, 0.68545224,
        0.70836926, 0.73153656, 0.75495967, 0.77864431, 0.80259637, 0.82682198, 0.85132744,
        0.8761193, 0.90120433, 0.92658955, 0.95228223, 0.97828992, 1.0046204, 1.0312819, 1.0582827,
        1.0856316, 1.1133377, 1.1414105, 1.1698597, 1.1986957, 1.2279291, 1.257571, 1.287633,
        1.3181271, 1.3490659, 1.3804627, 1.4123312, 1.4446857, 1.4775414, 1.510914, 1.5448199,
        1.5792767, 1.6143024, 1.6499161, 1.6861379, 1.7229891, 1.7604917, 1.7986692, 1.8375465,
        1.8771496, 1.9175062, 1.9586454, 2.0005982, 2.0433976, 2.0870782, 2.1316773, 2.1772341,
        2.2237909, 2.2713924, 2.3200867, 2.369925, 2.4209625, 2.4732583, 2.526876, 2.5818841,
        2.6383567, 2.6963739, 2.7560226, 2.8173973, 2.8806007, 2.9457452, 3.0129539, 3.0823618,
        3.1541177, 3.2283862, 3.3053495, 3.3852107, 3.4681965, 3.5545614, 3.6445924, 3.7386145,
        3.8369981, 3.9401676, 4.0486126, 4.1629019, 4.2837014, 4.4117979, 4.5481301, 4.6938302,
        4.8502814, 5.0191978, 5.2027393, 5.403681, 5.6256716, 5.8736436, 6.1544969, 6.478308,
        6.8606417, 7.3274435, 7.9270044, 8.7665159, 10.180729,
    ),
}
# fmt: on


def levels(bits: int) -> F32:
    """The 2^bits levels in ascending order; code c stands for level c."""
    half = np.array(_POSITIVE[bits], np.float32)
    return np.concatenate([-half[::-1], half])


def thresholds(bits: int) -> F32:
    """The 2^bits − 1 midpoints between levels: a value's code is how many lie below it."""
    found = levels(bits).astype(np.float64)
    return ((found[1:] + found[:-1]) / 2).astype(np.float32)


def gain(bits: int) -> float:
    """What row scales are multiplied by, so that λ = 1 retrieves a delta at its full length.

    A level is the mean of its cell, so a cut superposition Q has ⟨S, Q⟩ = ‖Q‖² = (1 − D)‖S‖²,
    D being `DISTORTION`. Dividing by 1 − D makes it ⟨S, Q⟩ = ‖S‖², and λ means what it does live.
    """
    return 1.0 / (1.0 - DISTORTION[bits])
