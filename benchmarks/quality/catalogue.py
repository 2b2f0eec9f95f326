"""The rows of the tables: every method with every setting that is run."""

from __future__ import annotations

import methods as m
from banks import bank
from methods import FIXED, Method, superposed
from superposition import GAUSSIAN, PER_ELEMENT

from randes_cli.specs import PRESETS, Signs, Transform

SEEDS = (42, 43, 44)
#: Fewest to most tasks in one bank.
CROWDS = (1, 2, 4, 8, 16, 32, 64, 96)

MERGING, COMPRESSION, OWN, RANDES = "merging", "compression", "own delta", "randes"
SHARES = (0.1, 0.05, 0.2, 0.3, 0.4, 0.5)
TALL = (0.4, 0.3, 0.5, 0.2, 0.6)
PAST_ONE = (1.0, 1.2, 1.4, 1.6, 0.8, 0.6, 0.4, 0.2)


def baselines() -> list[Method]:
    """Everything that is not randes."""
    return [
        Method("base", MERGING, m.pre_trained, FIXED),
        Method("fine-tuned", COMPRESSION, m.fine_tuned, FIXED),
        Method("weight averaging", MERGING, m.weight_average, FIXED),
        Method("task arithmetic", MERGING, m.task_arithmetic, curve=True),
        Method("TIES", MERGING, m.ties, PAST_ONE, curve=True),
        Method("DARE 50 %", MERGING, m.dare(0.5), seeds=True),
        Method("DARE 90 %", MERGING, m.dare(0.9), seeds=True),
        Method("magnitude masking", COMPRESSION, m.magnitude_masking, SHARES, curve=True),
        Method("TALL-masks", COMPRESSION, m.tall_masks, TALL, curve=True),
        Method("EMR", COMPRESSION, m.emr),
        Method("BitDelta (1 bit)", OWN, m.bit_delta),
        *(Method(f"SVD rank {rank}", OWN, m.truncated_svd(rank)) for rank in (1, 2, 4, 16)),
        *(Method(f"own delta {bits} bit", OWN, m.own_delta(bits)) for bits in (1, 2, 4)),
    ]


def _transforms() -> dict[str, Transform]:
    return {name: Transform.from_preset(name) for name in PRESETS if name != "ta"}


def banks() -> list[Method]:
    """randes through its own bank file."""
    return [
        Method(f"{preset} {bits} bit", RANDES, bank(preset, bits), seeds=True, curve=bits == 16)
        for preset in _transforms()
        for bits in (16, 8)
    ]


def sealed() -> list[Method]:
    """randes cut to few bits, and in groups; simulated (see codec.py)."""
    hankel = Transform.from_preset("hankel")
    rows = [
        Method(f"{preset} {bits} bit", RANDES, superposed(transform, bits), seeds=True)
        for preset, transform in _transforms().items()
        for bits in ((4, 3, 2, 1) if preset == "hankel" else (4, 2))
    ]
    rows += [
        Method(
            f"hankel {groups} x {bits} bit",
            RANDES,
            superposed(hankel, bits, groups=groups),
            seeds=True,
        )
        for groups in (2, 4)
        for bits in (1, 2, 4)
    ]
    return rows


def files() -> list[Method]:
    """The sealed banks and groups again through the bank file, to check the simulation."""
    wanted = [("hankel", 1, bits) for bits in (4, 3, 2, 1)]
    wanted += [("hankel", groups, bits) for groups in (2, 4) for bits in (2, 4)]
    wanted += [("srsf", 1, 2)]
    return [
        Method(
            f"{preset} {f'{groups} x ' if groups > 1 else ''}{bits} bit (file)",
            RANDES,
            bank(preset, bits, groups),
            seeds=True,
        )
        for preset, groups, bits in wanted
    ]


def ablations() -> list[Method]:
    """The paper's Figures 5 and 6 in float32, each a change of one thing."""
    shuffled = Transform.from_preset("srsf")
    wanted: dict[str, Method] = {}

    def add(name: str, transform: Transform, **more: str) -> None:
        build = superposed(transform, None, **more)  # type: ignore[arg-type]
        wanted[name] = Method(f"ablation {name}", "ablation", build, seeds=True)

    column, element = Transform.from_preset("rsf"), Transform(signs=Signs.hankel)
    add("context identity", Transform.from_preset("s"))
    add("context sign per column", shuffled)
    add("context random diagonal", shuffled, context=GAUSSIAN)
    add("context hankel with shuffle", Transform(shuffled.shuffle, Signs.hankel))
    add("context hankel", element)
    add("context sign per element", element, context=PER_ELEMENT)
    for preset in ("srsf", "hankel"):
        for targets in ("all", "mlp", "attn"):
            add(f"targets {preset} {targets}", Transform.from_preset(preset, targets=targets))
        for every in (1, 2, 3, 4):
            add(f"every {preset} {every}", Transform.from_preset(preset, every=every))
    for every in (1, 2, 3, 4):
        add(f"every s {every}", Transform.from_preset("s", every=every))
        add(f"every shift {every}", Transform.from_preset("shift", every=every))
    add("signs alone per column", column)
    return list(wanted.values())


def scaling(crowds: tuple[int, ...] = CROWDS) -> list[Method]:
    """Fuller and fuller banks."""
    rows = []
    for preset, bits in (("hankel", 2), ("hankel", None), ("srsf", None), ("rsf", None)):
        for count in crowds:
            build = superposed(Transform.from_preset(preset), bits, tasks=count)
            name = f"scaling {preset} {bits or 'float32'} T={count}"
            rows.append(Method(name, "scaling", build, seeds=True, tasks=count))
    return rows
