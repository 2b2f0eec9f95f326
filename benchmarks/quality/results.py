"""What was measured on one bed, by method, and how tables show it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from beds import Bed
from measure import Cell, read_cells
from methods import Method

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "results"


@dataclass(frozen=True)
class Row:
    """One method on one bed: its seeds together."""

    cells: Sequence[Cell]
    tuned: Mapping[str, float]

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
    def spread(self) -> float:
        """Half the range over the seeds."""
        values = [self._normalised(cell) for cell in self.cells]
        return (max(values) - min(values)) / 2

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

    def of_seeds(self, seeds: Container[int]) -> Row:
        """The same of some seeds only."""
        return Row([cell for cell in self.cells if cell.seed in seeds], self.tuned)

    def score(self, task: str) -> float:
        return mean(cell.scores[task] for cell in self.cells)


class Results:
    """All rows of one bed by method."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        by_method: dict[str, list[Cell]] = {}
        for cell in read_cells(bed.name):
            by_method.setdefault(cell.method, []).append(cell)
        tuned = by_method["fine-tuned"][0].scores
        self.rows = {name: Row(cells, tuned) for name, cells in by_method.items()}

    def of(self, methods: Iterable[Method]) -> list[Row]:
        """The measured rows of some methods, in their order."""
        return [self.rows[method.name] for method in methods if method.name in self.rows]

    def value(self, name: str) -> float | None:
        """Normalised accuracy of a method, where it was run."""
        return self.rows[name].normalised if name in self.rows else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(value: float | None) -> str:
    return "not run" if value is None else f"{100 * value:.1f} %"


def with_spread(row: Row) -> str:
    if len(row.cells) == 1:
        return percent(row.normalised)
    return f"{100 * row.normalised:.1f} ± {100 * row.spread:.1f} %"


def picture(path: Path, title: str) -> str:
    return f"![{title}]({path.relative_to(DOCS).as_posix()})"
