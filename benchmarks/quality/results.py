"""What was measured on one bed, by method, and how tables show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from beds import Bed, load
from measure import Cell, read_cells
from methods import Method

from randes_cli.plan import share_of
from randes_cli.specs import SHARES, TensorInfo

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "results"


@dataclass(frozen=True)
class Row:
    """One method on one bed: its seeds together.

    `floor` are the base's scores; `stored` the part of all elements that a share of 1/m keeps,
    which is more than 1/m where matrices are small.
    """

    cells: Sequence[Cell]
    tuned: Mapping[str, float]
    floor: Mapping[str, float]
    stored: Mapping[int, float]

    @property
    def name(self) -> str:
        return self.cells[0].method

    @property
    def normalised(self) -> float:
        """Mean over tasks and seeds of the score relative to the fine-tuned model's."""
        return mean(self._normalised(cell) for cell in self.cells)

    def _normalised(self, cell: Cell) -> float:
        return mean(score / self.tuned[task] for task, score in cell.scores.items())

    @property
    def gain(self) -> float:
        """The share of the gain over the base that is kept, mean over seeds."""
        return mean(self._gain(cell) for cell in self.cells)

    def _gain(self, cell: Cell) -> float:
        whole, floor = (mean(of[t] for t in cell.scores) for of in (self.tuned, self.floor))
        return (cell.mean - floor) / (whole - floor)

    @property
    def spreads(self) -> tuple[float, float]:
        """Half the range over the seeds of what is kept of the accuracy, and of the gain."""
        both = [(self._normalised(cell), self._gain(cell)) for cell in self.cells]
        return tuple((max(v) - min(v)) / 2 for v in zip(*both, strict=True))  # type: ignore[return-value]

    @property
    def in_all(self) -> float:
        """Bits an element of all groups together; of other methods what lies on disk."""
        facts = self.cells[0].facts
        if "bits" in facts:
            return float(facts["bits"] * facts["groups"] * self.stored[facts["share"]])
        return self.bits

    @property
    def absolute(self) -> float:
        return mean(cell.mean for cell in self.cells)

    @property
    def size(self) -> float:
        """Bytes on disk over the base's in float32."""
        return self.cells[0].nbytes / self.cells[0].base_bytes

    @property
    def bits(self) -> float:
        """Bits stored per value of the base, beyond the base itself."""
        return 32 * (self.size - 1)

    @property
    def knobs(self) -> str:
        """The knob, or the least and the most over the seeds."""
        found = sorted({cell.knob for cell in self.cells})
        return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"

    @property
    def seconds(self) -> float:
        """What packing, restoring and scoring took, of the first seed."""
        return self.cells[0].seconds


def stored_shares(bed: Bed) -> dict[int, float]:
    """The part of a base's elements that each share keeps."""
    base = [TensorInfo(n, "F32", tuple(t.shape)) for n, t in load(bed.base).items()]
    sizes = [tensor.elements for tensor in base]
    return {
        every: sum(
            size / share_of(tensor, 0, {0: every}).every
            for tensor, size in zip(base, sizes, strict=True)
        )
        / sum(sizes)
        for every in SHARES
    }


class Results:
    """All rows of one bed by method."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        by_method: dict[str, list[Cell]] = {}
        for cell in read_cells(bed.name):
            by_method.setdefault(cell.method, []).append(cell)
        tuned, floor = (by_method[name][0].scores for name in ("fine-tuned", "base"))
        stored = stored_shares(bed)
        self.rows = {name: Row(cells, tuned, floor, stored) for name, cells in by_method.items()}

    def of(self, methods: Iterable[Method]) -> list[Row]:
        """The measured rows of some methods, in their order."""
        return [self.rows[method.name] for method in methods if method.name in self.rows]

    def told(self, tasks: int | None = None) -> list[Row]:
        """The banks at their own λ, of the bed's tasks or of so many, by bits in all."""
        count = tasks or len(self.bed.tasks)
        found = [
            row
            for name, row in self.rows.items()
            if name.endswith("λ as told")
            and row.cells[0].facts["tasks"] == count
            and not {"half", "ends"} & {k for k, v in row.cells[0].facts.items() if v is True}
        ]
        return sorted(found, key=lambda row: (row.in_all, row.size))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(value: float | None) -> str:
    return "not run" if value is None else f"{100 * value:.1f} %"


def with_spread(row: Row) -> tuple[str, str]:
    """What is kept of the accuracy, and of the gain."""
    both = zip((row.normalised, row.gain), row.spreads, strict=True)
    if len(row.cells) == 1:
        return percent(row.normalised), percent(row.gain)
    first, second = (f"{100 * value:.1f} ± {100 * spread:.1f} %" for value, spread in both)
    return first, second


def picture(path: Path, title: str) -> str:
    return f"![{title}]({path.relative_to(DOCS).as_posix()})"
