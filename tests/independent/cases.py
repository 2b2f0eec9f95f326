"""What the test vectors of the bank format hold: small families, and what each bank shows.

Every value follows from a name by SHAKE-256, so that the vectors can be made again anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

#: Each dtype's name in safetensors.
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
}
#: Of the dtypes in which a retrieval passes the range here.
LARGEST = {"F16": 65504.0, "F8_E4M3": 448.0, "F8_E5M2": 57344.0}
NAMES = {np.dtype(kind): name for name, kind in DTYPES.items()}
State = dict[str, np.ndarray]


def values(label: str, shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
    """Multiples of scale / 2^15 between -scale and scale."""
    count = int(np.prod(shape))
    raw = np.frombuffer(hashlib.shake_256(label.encode()).digest(2 * count), "<i2")
    made: np.ndarray = raw.astype(np.float32) * np.float32(scale / 2**15)
    return made.reshape(shape)


def state(label: str, shapes: Mapping[str, Sequence[int]], kind: str = "F32") -> State:
    """A base."""
    return {n: values(f"{label}/{n}", s).astype(DTYPES[kind]) for n, s in shapes.items()}


def tuned(base: State, label: str, scale: float = 0.05) -> State:
    """A fine-tune of every floating-point tensor."""
    return {
        name: (value.astype(np.float32) + values(f"{label}/{name}", value.shape, scale)).astype(
            value.dtype
        )
        if value.dtype != np.int64
        else value
        for name, value in base.items()
    }


@dataclass
class Vector:
    """One bank: how it is packed, what is done to it afterwards, and what it shows.

    `then` are commands, `BANK` standing for the bank; `retrieve` the options of each retrieval.
    """

    shows: str
    base: State
    tasks: Mapping[str, State]
    options: Sequence[str] = ()
    then: Sequence[Sequence[str]] = ()
    retrieve: Sequence[str] = ()
    extra: Mapping[str, State] = field(default_factory=dict)


LAYERS = {
    "embed.weight": (6, 4),
    **{f"h.{n}.w.weight": (5, 4) for n in range(3)},
    **{f"h.{n}.w.weight": (3, 4) for n in range(3, 5)},
    **{f"h.{n}.n.bias": (4,) for n in range(5)},
}
WIDE = {"w": (40, 36), "conv": (16, 3, 3, 16), "odd": (33, 31), "norm": (7,)}


def family(base: State, count: int = 3, scale: float = 0.05) -> dict[str, State]:
    return {f"t{k}": tuned(base, f"t{k}", scale) for k in range(count)}


def _transforms() -> dict[str, Vector]:
    base = state("layers", LAYERS)
    words = {
        "hankel": ["--transform", "hankel"],
        "two-sided": ["--transform", "two-sided"],
        "srsf": ["--transform", "srsf"],
        "rsf": ["--transform", "rsf"],
        "s": ["--transform", "s"],
        "shift": ["--transform", "shift"],
        "ta": ["--transform", "ta"],
        "every-2": ["--transform", "srsf", "--every", "2"],
        "targets": ["--transform", "srsf", "--targets", r"\.w\.", "--rest", "own"],
        "groups": ["--groups", "2"],
    }
    return {
        f"transform-{name}": Vector(f"transform: {name}", base, family(base), options)
        for name, options in words.items()
    }


def _seals() -> dict[str, Vector]:
    base = state("wide", WIDE)
    return {
        f"seal-{bits}": Vector(
            f"sealed at {bits} bits: 4-d, a length that is no multiple of 8, a live vector",
            base,
            family(base),
            then=[["seal", "BANK", "--bits", str(bits), "--in-place"]],
        )
        for bits in (1, 2, 3, 4, 8)
    }


def _shares() -> dict[str, Vector]:
    base = state(
        "shares", {"w": (70, 67), "conv": (16, 5, 4, 4), "thin": (5, 30), "v": (7,)}, "BF16"
    )
    wide = state("wide shares", {"w": (131, 133), "v": (7,)}, "BF16")
    return {
        "share-live": Vector(
            "half of the elements in two groups, ragged sides; thin and small tensors dense",
            base,
            family(base, 2),
            ["--share", "1/2", "--groups", "2"],
        ),
        "share-sealed": Vector(
            "2 bits on a quarter of the elements, hankel signs",
            wide,
            family(wide, 2),
            ["--share", "1/4", "--transform", "hankel", "--bits", "2"],
        ),
        "share-two-sided": Vector(
            "1 bit on a quarter, two-sided signs",
            wide,
            family(wide, 2),
            ["--bits", "1/4", "--transform", "two-sided"],
        ),
    }


def _widths() -> dict[str, Vector]:
    base = state("widths", {"w": (24, 16), "spiky": (24, 16)})
    tasks = family(base)
    tasks["t0"]["spiky"] = tasks["t0"]["spiky"].copy()
    tasks["t0"]["spiky"][3, 4] += 3
    return {
        "8-bits": Vector("8 bits, and a tensor kept at 16", base, tasks, ["--bits", "8"]),
        "lambda": Vector(
            "λ 0.3: a fused multiply-add changes values", base, tasks, retrieve=["--lambda", "0.3"]
        ),
    }


def _numbers() -> dict[str, Vector]:
    made = {}
    for kind in ("F64", "F16", "BF16", "F8_E4M3", "F8_E5M2"):
        base = state(f"numbers/{kind}", {"w": (32, 16), "v": (9,)}, kind)
        if kind in LARGEST:
            base["top"] = np.full((4, 4), LARGEST[kind], DTYPES[kind])
        tasks = family(base, 2, 0.4)
        for task in tasks.values() if kind in LARGEST else ():
            task["top"] = (base["top"].astype(np.float64) * 0.75).astype(DTYPES[kind])
        made[f"numbers-{kind.lower()}"] = Vector(
            f"{kind}: rounding with ties, saturation", base, tasks, retrieve=["--saturate"]
        )
    base = state("zero", {"w": (8, 8)})
    base["w"][::2] = -0.0
    tasks = family(base, 2)
    for task in tasks.values():
        task["w"][:4] = base["w"][:4]
    made["negative-zero"] = Vector("−0.0 in the base, zeros of S under both signs", base, tasks)
    return made


def _names() -> dict[str, Vector]:
    base = state(
        "names", {"größe.0.w": (5, 4), "größe.1.w": (5, 4), "層.0.w": (5, 4)} | {"вес": (6, 3)}
    )
    base["steps"] = np.array(7, np.int64)
    tasks = family(base, 2)
    tasks["t1"] = {f"model.{name}": value for name, value in tasks["t1"].items()}
    tasks["t1"]["head.weight"] = values("head", (2, 4))
    sized = state("sized", {"embed_tokens.weight": (8, 4), "w": (5, 4)})
    longer, shorter = tuned(sized, "longer"), tuned(sized, "shorter")
    rows = values("rows", (3, 4))
    longer["embed_tokens.weight"] = np.concatenate([longer["embed_tokens.weight"], rows])
    shorter["embed_tokens.weight"] = shorter["embed_tokens.weight"][:6]
    same = tuned(sized, "same")
    same["w"] = sized["w"].copy()
    del same["embed_tokens.weight"]
    return {
        "names": Vector("names in three scripts, a prefix, an own tensor, an integer", base, tasks),
        "resized": Vector(
            "embeddings resized both ways; an unchanged and a missing tensor",
            sized,
            {"longer": longer, "shorter": shorter, "same": same},
        ),
    }


def _edits() -> dict[str, Vector]:
    base = state("edits", {"w": (12, 10), "v": (6,)})
    tasks = family(base, 3, 0.5) | {"faint": tuned(base, "faint", 0.02)}
    coming = {"late": tuned(base, "late", 0.3)}
    add = ["add", "BANK", "late=late.safetensors"]
    return {
        "forgotten": Vector(
            "a forgotten task; the default λ of a faint one is below 1",
            base,
            tasks,
            then=[["remove", "BANK", "--task", "t1", "--forget"]],
        ),
        "edited": Vector(
            "one task removed, one added",
            base,
            tasks,
            then=[["remove", "BANK", "--task", "t1", "--checkpoint", "t1.safetensors"], add],
            extra=coming,
        ),
        "added-after-seal": Vector(
            "a live group beside a sealed one",
            state("wide", WIDE),
            family(state("wide", WIDE), 2),
            then=[["seal", "BANK", "--bits", "2", "--in-place"], add],
            extra={"late": tuned(state("wide", WIDE), "late")},
        ),
        "seed": Vector("the largest seed of JavaScript", base, tasks, ["--seed", str(2**53 - 8)]),
        "reference": Vector("the base outside", base, tasks, ["--base", "reference"]),
    }


def _ties() -> dict[str, Vector]:
    base = state("ties", {"head": (8, 6), "w": (6, 6)})
    both = {**base, "embed": base["head"]}
    apart = tuned(both, "apart")
    tied = {**tuned(both, "tied"), "embed": tuned(both, "tied")["head"]}
    tasks = {
        "tied": tied,
        "apart": apart,
        "other-name": {"embed": tied["embed"], "w": tied["w"]},
        "more-names": {**tied, "third": tied["head"]},
    }
    outside = ["--base", "reference"]
    return {
        "ties": Vector("tensors with several names, in base and tasks", both, tasks),
        "ties-outside": Vector("the same, the base outside", both, tasks, outside),
    }


def vectors() -> dict[str, Vector]:
    """All of them, by file name."""
    plain = _transforms() | _seals() | _shares() | _widths() | _numbers()
    return plain | _names() | _edits() | _ties()
