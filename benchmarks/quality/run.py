"""Measure randes against what else there is, on real fine-tunes, and write docs/results.md.

    python benchmarks/quality/run.py [--bed NAME ...] [--part PART ...] [--method NAME ...]

Models and cells are cached below `.cache`; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import catalogue
import report
import torch
from beds import Bed
from measure import cell_path, measure
from methods import Method, Models


def beds() -> dict[str, Callable[[], Bed]]:
    """The beds by name; a bed is trained when it is first wanted."""
    import decoder
    import encoder
    import encoder_lora
    import vision

    return {
        "digits": vision.digits,
        "digits-conv": vision.digits_convolutions,
        "digits-large": vision.digits_large,
        "encoder": encoder.bed,
        "encoder-near": encoder.near_bed,
        "decoder": decoder.bed,
        "decoder-far": decoder.far_bed,
        "decoder-medium": decoder.medium_bed,
        "decoder-large": decoder.large_bed,
        "encoder-lora": encoder_lora.merged_bed,
        "encoder-adapters": encoder_lora.adapter_bed,
    }


def run(bed: Bed, rows: list[Method], seeds: list[int]) -> None:
    """Measure what is missing, the first seed of everything first."""
    wanted = [
        (row, seed)
        for place, seed in enumerate(seeds)
        for row in rows
        if (row.seeds or place == 0) and not cell_path(bed.name, row.name, seed).exists()
    ]
    if not wanted:
        return
    models = Models(bed)
    for at, (row, seed) in enumerate(wanted, 1):
        start = perf_counter()
        cell = measure(models, row, seed)
        print(
            f"{bed.name} {at}/{len(wanted)}  {row.name:32} seed {seed}  {cell.mean:.4f}  "
            f"knob {cell.knob}  {cell.nbytes / cell.base_bytes:.3f}x  "
            f"{perf_counter() - start:.0f} s",
            flush=True,
        )


def main() -> None:
    """Measure what the command line names, then write the report."""
    known = beds()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bed", nargs="+", choices=known, default=list(known))
    parser.add_argument("--part", nargs="+", choices=catalogue.PARTS, default=catalogue.PARTS)
    parser.add_argument("--method", nargs="+", metavar="NAME", help="these rows, in this order")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(catalogue.SEEDS))
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report")
    parser.add_argument("--quiet", action="store_true", help="measure, and write no report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in [] if options.report else options.bed:
        bed = known[name]()
        rows = [row for part in options.part for row in catalogue.rows(part, len(bed.tasks))]
        if options.method:
            named = {row.name: row for row in rows}
            rows = [named[name] for name in options.method if name in named]
        run(bed, rows, options.seeds)
    if not options.quiet:
        print(f"wrote {report.write(known)}")


if __name__ == "__main__":
    main()
