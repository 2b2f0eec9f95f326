"""The rows of the tables: every method with every setting that is run."""

from __future__ import annotations

import merging
import methods as m
from methods import FIXED, Method, superposed
from superposition import GAUSSIAN, PER_ELEMENT

from banks import bank, own_deltas
from randes_cli.specs import Signs, Transform

SEEDS = (42, 43, 44)
#: Fewest to most tasks in one bank.
CROWDS = (1, 2, 4, 8, 16, 32, 64, 96)
#: Groups and bits that the fullest bank is tried with. Tasks are dealt in turn, so with a number
#: of groups that has no factor in common with the beds' eight tasks none meets only its copies.
GROUPED = ((3, 2), (5, 2), (7, 2), (11, 1))

MERGING, COMPRESSION, OWN, RANDES = "merging", "compression", "own delta", "randes"
SHARES = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
TALL = (0.6, 0.5, 0.4, 0.3, 0.2)
PAST_ONE = (1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2)


def baselines() -> list[Method]:
    """Everything that is not randes."""
    return [
        Method("base", MERGING, m.pre_trained, FIXED),
        Method("fine-tuned", COMPRESSION, m.fine_tuned, FIXED),
        Method("weight averaging", MERGING, m.weight_average, FIXED),
        Method("task arithmetic", MERGING, m.task_arithmetic, curve=True),
        Method("TIES", MERGING, merging.ties, PAST_ONE, curve=True),
        Method("DARE 50 %", MERGING, merging.dare(0.5), seeds=True),
        Method("DARE 90 %", MERGING, merging.dare(0.9), seeds=True),
        Method("magnitude masking", COMPRESSION, m.magnitude_masking, SHARES, curve=True),
        Method("TALL-masks", COMPRESSION, m.tall_masks, TALL, curve=True),
        Method("EMR", COMPRESSION, m.emr),
        Method("BitDelta (1 bit)", OWN, m.bit_delta),
        *(Method(f"SVD rank {rank}", OWN, m.truncated_svd(rank)) for rank in (1, 2, 4, 16)),
        *(Method(f"own delta {bits} bit", OWN, own_deltas(bits)) for bits in (1, 2, 4)),
    ]


def banks() -> list[Method]:
    """randes, through its bank file: every transform, then hankel at other widths and in groups."""
    rows = [
        Method(f"{preset} {bits} bit", RANDES, bank(preset, bits), seeds=True, curve=bits == 16)
        for bits in (16, 8, 4, 2)
        for preset in ("hankel", "srsf", "rsf", "s", "shift")
    ]
    rows += [
        Method(f"hankel {bits} bit", RANDES, bank("hankel", bits), seeds=True) for bits in (3, 1)
    ]
    choices = [(groups, bits) for groups in (2, 4) for bits in (1, 2, 4)]
    rows += [
        Method(f"hankel {groups} x {bits} bit", RANDES, bank("hankel", bits, groups), seeds=True)
        for groups, bits in sorted([*choices, (3, 2)])
    ]
    return rows


def defaults(crowds: tuple[int, ...] = (32, 96)) -> list[Method]:
    """Banks at the λ that `unpack` takes where nobody tuned."""
    choices = {
        "hankel 16 bit": bank("hankel", 16),
        "hankel 8 bit": bank("hankel", 8),
        "hankel 2 bit": bank("hankel", 2),
        "hankel 2 x 2 bit": bank("hankel", 2, 2),
        "hankel 2 x 4 bit": bank("hankel", 4, 2),
        "srsf 16 bit": bank("srsf", 16),
        **{f"scaling hankel 2 T={n}": bank("hankel", 2, tasks=n) for n in crowds},
    }
    return [
        Method(
            f"default λ {name}",
            "default λ",
            build,
            knobs=(),
            seeds=True,
            tasks=int(name.partition("T=")[2]) if "T=" in name else None,
        )
        for name, build in choices.items()
    ]


def ablations() -> list[Method]:
    """The paper's Figures 5 and 6 in float32, each a change of one thing."""
    shuffled = Transform.from_preset("srsf")
    wanted: dict[str, Method] = {}

    def add(name: str, transform: Transform, **more: str) -> None:
        build = superposed(transform, **more)
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
    """Fuller and fuller banks, and the fullest in groups."""
    rows = [
        Method(
            f"scaling {preset} {bits} T={count}",
            "scaling",
            bank(preset, bits, tasks=count),
            seeds=True,
            tasks=count,
        )
        for preset, bits in (("hankel", 2), ("hankel", 16), ("srsf", 16), ("rsf", 16))
        for count in crowds
    ]
    most = max(crowds)
    rows += [
        Method(
            f"scaling hankel {groups} x {bits} T={most}",
            "scaling",
            bank("hankel", bits, groups, most),
            seeds=True,
            tasks=most,
        )
        for groups, bits in GROUPED
    ]
    return rows
