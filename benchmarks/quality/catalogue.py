"""The rows of the tables: every method with every setting that is run."""

from __future__ import annotations

from dataclasses import replace

import kinds
import merging
import methods as m
import prototypes
import registry
from methods import FIXED, Method, superposed
from single import drop_and_rescale as drop
from single import ultra_delta
from superposition import GAUSSIAN, PER_ELEMENT

from banks import Setting, bank, own_deltas
from randes_cli.specs import Signs, Transform

SEEDS = (42, 43, 44)
PRESETS = ("two-sided", "hankel", "srsf", "rsf", "s", "shift")
#: The default of `pack`.
OURS = "two-sided"
#: Tasks of live banks in bfloat16; None: a bed's own.
LIVE = (2, None, 32)
#: Tasks in one bank beyond the bed's own, and the λ that are tried with them.
CROWDS = (16, 32, 64, 96)
TRIED = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
#: (groups, bits, share, tasks) of more banks that every λ is tried with: other kinds of noise.
NOISES = (
    *((1, 1, 1, None), (1, 1, 4, None), (0, 1, 1, None), (1, 16, 1, 32), (1, 1, 1, 32)),
    *((3, 2, 1, 32), (3, 1, 1, 96), (7, 1, 4, 96), (1, 1, 1, 96)),
    *((1, 1, 2, None), (2, 1, 4, None)),
)

MERGING, COMPRESSION, OWN, RANDES = "merging", "compression", "own delta", "randes"
SHARES = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
TALL = (0.6, 0.5, 0.4, 0.3, 0.2)
#: Bits an element for all tasks together that single deltas are cut to.
IN_ALL = (0.5, 1, 2, 4)
#: UltraDelta's own factor.
PAST_THREE = (1.3, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
PAST_ONE = (1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2)

#: (groups, bits, one element in m) of the bed's own tasks, by bits in all; 0 groups: one a task.
GRID = (
    *((1, 1, 8), (1, 1, 4), (1, 1, 2), (1, 2, 4)),
    *((1, 1, 1), (1, 2, 2), (2, 1, 2), (4, 1, 4)),
    *((1, 2, 1), (2, 1, 1), (4, 1, 2), (0, 1, 4), (0, 2, 8)),
    *((1, 4, 1), (2, 2, 1), (4, 1, 1), (0, 1, 2), (0, 2, 4)),
    *((1, 8, 1), (4, 2, 1), (0, 1, 1), (0, 2, 2), (1, 16, 1), (0, 2, 1)),
    *((1, 8, 4), (1, 8, 8), (2, 1, 4), (4, 1, 8)),
    *((0, 1, 8), (4, 2, 8), (4, 3, 8), (4, 4, 8)),
)
#: The same of fuller banks, by tasks.
CROWDED = {
    32: ((1, 16, 1), (1, 2, 1), (1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 2), (3, 2, 1)),
    96: (
        *((1, 16, 1), (1, 2, 1), (3, 1, 1), (6, 1, 2), (12, 1, 4), (24, 1, 8)),
        *((5, 2, 1), (7, 1, 1), (7, 1, 4), (24, 1, 4), (48, 1, 8), (48, 2, 8)),
        *((2, 1, 1), (5, 1, 4)),
    ),
}


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
        Method("BitDelta (1 bit)", OWN, m.bit_delta, FIXED),
        *(Method(f"SVD rank {rank}", OWN, m.truncated_svd(rank)) for rank in (1, 2, 4, 16)),
        *(Method(f"own delta {bits} bit", OWN, own_deltas(bits), FIXED) for bits in (1, 2, 4)),
        *(
            Method(f"drop and rescale, {bits:g} bit in all", OWN, drop(bits), seeds=True)
            for bits in IN_ALL
        ),
        *(
            Method(f"UltraDelta, {bits:g} bit in all", OWN, ultra_delta(bits), PAST_THREE, True)
            for bits in IN_ALL
        ),
        *(
            Method(f"deltatensors, {strategy}", OWN, registry.deltatensors(strategy), FIXED)
            for strategy in ("int4", "quantized")
        ),
        Method("dmx-compress, delta", OWN, registry.dmx(), FIXED),
        *(
            Method(f"sparse-llm, {name}", OWN, registry.sparse(rank), FIXED)
            for name, rank in (("lossless", None), ("SVD rank 16", 16))
        ),
    ]


def _randes(setting: Setting, *, curve: bool = False) -> Method:
    return Method(setting.name, RANDES, bank(setting), seeds=True, curve=curve)


def transforms() -> list[Method]:
    """randes, through its bank file: every transform at some widths, then fuller."""
    rows = [
        _randes(Setting(preset, bits), curve=bits == 16)
        for bits in (2, 16, 1)
        for preset in PRESETS
    ]
    return rows + [
        _randes(Setting(preset, bits, tasks=32)) for bits in (2, 16, 1) for preset in PRESETS
    ]


def _as_told(setting: Setting) -> Method:
    """A bank at the λ that `unpack` takes where nobody tuned."""
    return Method(f"{setting.name}, λ as told", RANDES, bank(setting), knobs=(), seeds=True)


def grid(tasks: int = 8) -> list[Method]:
    """Bits × groups × shares, at the λ that a bank has without being tuned."""
    own = [_as_told(Setting(OURS, bits, groups or tasks, share)) for groups, bits, share in GRID]
    return own + [
        _as_told(Setting(OURS, bits, groups, share, count))
        for count, choices in CROWDED.items()
        for groups, bits, share in choices
    ]


def ablations() -> list[Method]:
    """The paper's Figures 5 and 6 in float32, each a change of one thing."""
    shuffled = Transform.from_preset("srsf")
    wanted: dict[str, Method] = {}

    def add(name: str, transform: Transform, **more: str) -> None:
        build = superposed(transform, **more)
        wanted[name] = Method(f"ablation {name}", "ablation", build, seeds=True)

    column, element = Transform.from_preset("rsf"), Transform(signs=Signs.two_sided)
    add("context identity", Transform.from_preset("s"))
    add("context sign per column", shuffled)
    add("context random diagonal", shuffled, context=GAUSSIAN)
    add("context two-sided with shuffle", Transform(shuffled.shuffle, Signs.two_sided))
    add("context two-sided", element)
    add("context hankel", Transform(signs=Signs.hankel))
    add("context sign per element", element, context=PER_ELEMENT)
    for preset in ("srsf", OURS):
        for targets in ("all", "mlp", "attn"):
            add(f"targets {preset} {targets}", Transform.from_preset(preset, targets=targets))
        for every in (1, 2, 3, 4):
            add(f"every {preset} {every}", Transform.from_preset(preset, every=every))
    for every in (1, 2, 3, 4):
        add(f"every s {every}", Transform.from_preset("s", every=every))
        add(f"every shift {every}", Transform.from_preset("shift", every=every))
    add("signs alone per column", column)
    return list(wanted.values())


def lambdas(tasks: int = 8) -> list[Method]:
    """Fuller and fuller banks of one group at 2 bits, then others; every λ tried."""
    made = [Setting(OURS, 2, tasks=count) for count in (None, *CROWDS)]
    made += [
        Setting(OURS, bits, groups or tasks, share, count) for groups, bits, share, count in NOISES
    ]
    return [
        Method(f"λ of {one.name}", "λ", bank(one), TRIED, seeds=True, curve=True) for one in made
    ]


def live() -> list[Method]:
    """Live banks of 8 and of 16 bits, of models in bfloat16: two tasks, a bed's own, and 32."""
    return [
        replace(_as_told(Setting(preset, bits, tasks=tasks, half=True)), tasks=tasks)
        for preset in (OURS, "hankel")
        for tasks in LIVE
        for bits in (16, 8)
    ]


def ends() -> list[Method]:
    """Banks whose embeddings and output head are exact."""
    made = (Setting(OURS, bits, groups, ends=True) for bits, groups in ((1, 1), (2, 1), (1, 2)))
    return [_as_told(setting) for setting in made]


PARTS = ("baselines", "grid", "live", "prototypes", "transforms", "lambdas", "kinds", "ablations")


def rows(part: str, tasks: int) -> list[Method]:
    """The methods of a part of the catalogue, for a bed of so many tasks."""
    made = {
        "baselines": baselines,
        "live": live,
        "transforms": transforms,
        "kinds": lambda: kinds.rows() + ends(),
        "ablations": ablations,
    }
    sized = {"grid": grid, "lambdas": lambdas, "prototypes": prototypes.rows}
    return sized[part](tasks) if part in sized else made[part]()
