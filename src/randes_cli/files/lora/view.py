"""What an adapter sees of its base: names and shapes, and the updates made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.lora.config import LoraConfig
from randes_cli.files.lora.families import Piece
from randes_cli.files.lora.stored_names import StoredNames
from randes_cli.files.source import Source
from randes_cli.specs import TensorInfo

#: What PEFT puts into the names of modules that it wraps.
BASE_LAYER = ".base_layer"
Pair = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that an update is made of: a tensor, left · right, or these with a core (Tucker).

    Attributes:
        left, right, core: names of the adapter's tensors; without `right`, `left` is all of it.
        turned: whether `left` is stored as rank × rows.
    """

    left: str
    shape: tuple[int, int]
    right: str | None = None
    core: str | None = None
    rank: int | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """One update: weight += scaling · B · A, or the transpose of that with `flip`.

    Attributes:
        a, b: names of the adapter's tensors.
        rank: of one expert.
        experts: how many experts' factors the two tensors hold.
        expert: which of them this is; None for all.
        rows: of B · A, those that this weight has; None for all.
        magnitude: name of the lengths that the outputs have once it is added (DoRA).
        place: the first of the weight's rows that it is of, and the one behind the last; None for
            all.
        matrices: what it is made of instead of B · A: one, or two whose product it is.
        kind: what such updates are called; that of a `LoKr` is Kronecker's product.
    """

    a: str
    b: str
    scaling: float
    rank: int = 1
    flip: bool = False
    experts: int = 1
    expert: int | None = None
    rows: tuple[int, int] | None = None
    magnitude: str | None = None
    place: tuple[int, int] | None = None
    matrices: tuple[Matrix, ...] = ()
    kind: str = "LoRA"


class Part:
    """A component of the base as an adapter's names see it.

    `rename` gives the base's name (with the component) of the model's; names that the base
    lacks are given back in the component.
    """

    def __init__(self, source: Source, component: str, wanted: Sequence[str]) -> None:
        base: Mapping[str, TensorInfo] = source.tensors
        start = f"{component}/" if component else ""
        inner = [
            n[len(start) :] for n in base if n.startswith(start) and "/" not in n[len(start) :]
        ]
        self._names = StoredNames(inner, wanted)
        self._start = start
        self.source, self.base = source.source, base

    def with_saved(self, own: Mapping[str, TensorInfo]) -> None:
        """Let tensors of the adapter stand for the base's."""
        self.base = {**self.base, **own}

    def rename(self, name: str) -> str:
        """The base's name for a name in the model."""
        return self._start + self._names.find(name)

    def piece(self, name: str) -> Piece | None:
        """Which rows of the base's tensor a name in the model stands for; None for all."""
        return self._names.piece(name)

    def has_module(self, last: str) -> bool:
        """Whether there is a module with a weight whose name, here or in the model, ends so."""
        return self._names.has_module(last)

    def inside(self, module: str) -> str:
        """The base's name of a module, which the prefix maps as it does its tensors."""
        return self._start + self._names.inside(module)


@dataclass(frozen=True)
class View:
    """One adapter, or one component of it: its factors by name, and the base's part.

    `shape` and `alpha` tell of a tensor and of a module's own α.
    """

    source: str
    part: Part
    config: LoraConfig
    shape: Callable[[str], tuple[int, ...]]
    alpha: Callable[[str], float | None]

    def lacking(self, module: str) -> MismatchError:
        """What to raise for a module that the base lacks."""
        return MismatchError(
            f"{self.source}: adapts {module}, which the base ({self.part.source}) lacks"
        )

    def factors(self, module: str, pair: Pair) -> tuple[str, str, bool]:
        """Names of A and B, and whether they are of an embedding."""
        parts = set(pair) - {"bias", "own bias", "m"}
        if parts not in ({"A", "B"}, {"eA", "eB"}):
            raise CheckpointError(f"{self.source}: {module} lacks one of its two factors")
        embedding = "eA" in pair
        return (pair["eA"], pair["eB"], True) if embedding else (pair["A"], pair["B"], False)
