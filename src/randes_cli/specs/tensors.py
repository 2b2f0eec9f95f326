"""Dtypes and tensors, as safetensors spells them."""

from __future__ import annotations

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from functools import lru_cache, partial
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT_NAME = "randes"
FORMAT_VERSION = 2


class Dtype(NamedTuple):
    """A dtype of stored tensors.

    Attributes:
        size: bytes of an element.
        floating: whether deltas can be superposed; all others travel as exact own tensors.
        numpy: its name in NumPy, or in ml_dtypes.
        torch: its name in torch.
    """

    size: int
    floating: bool
    numpy: str
    torch: str


#: Every dtype that randes stores, by its name in safetensors.
DTYPES: Mapping[str, Dtype] = {
    "F64": Dtype(8, True, "float64", "float64"),
    "F32": Dtype(4, True, "float32", "float32"),
    "F16": Dtype(2, True, "float16", "float16"),
    "BF16": Dtype(2, True, "bfloat16", "bfloat16"),
    "F8_E4M3": Dtype(1, True, "float8_e4m3fn", "float8_e4m3fn"),
    "F8_E5M2": Dtype(1, True, "float8_e5m2", "float8_e5m2"),
    "I64": Dtype(8, False, "int64", "int64"),
    "I32": Dtype(4, False, "int32", "int32"),
    "I16": Dtype(2, False, "int16", "int16"),
    "I8": Dtype(1, False, "int8", "int8"),
    "U64": Dtype(8, False, "uint64", "uint64"),
    "U32": Dtype(4, False, "uint32", "uint32"),
    "U16": Dtype(2, False, "uint16", "uint16"),
    "U8": Dtype(1, False, "uint8", "uint8"),
    "BOOL": Dtype(1, False, "bool_", "bool"),
    "C64": Dtype(8, False, "complex64", "complex64"),
}
ITEM_SIZE: Mapping[str, int] = {name: dtype.size for name, dtype in DTYPES.items()}
FLOAT_DTYPES = frozenset(name for name, dtype in DTYPES.items() if dtype.floating)


@lru_cache(maxsize=2**12)
def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Models have many tensors of few kinds."""
    return prod(shape) * ITEM_SIZE[dtype]


class TensorInfo(NamedTuple):
    """Name, dtype (safetensors spelling) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return _nbytes(self.dtype, self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns): leading dimensions multiplied × last; a vector is 1 × n."""
        if len(self.shape) < 2:
            return 1, self.elements
        return prod(self.shape[:-1]), self.shape[-1]


#: Tensors by name.
Tensors = Mapping[str, TensorInfo]

T = TypeVar("T")


#: Dtype and shape.
Kind = tuple[str, tuple[int, ...]]

#: Tensors of a table that are made one by one before all are, at the least: of a large one so many
#: as it has.
_SOME = 2**8


class Table(Mapping[str, TensorInfo]):
    """Tensors by name that nobody changes any more: what is found out about them is kept.

    Checkpoints with one header have one table (`files.header`), whatever their number. Of one that
    is made `of_columns` a tensor is an object only once it is asked for.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_found",
        "_kind_of",
        "_kinds",
        "_made",
        "_numbers",
        "names",
    )

    def __init__(self, tensors: Tensors | Iterable[tuple[str, TensorInfo]]) -> None:
        self._made: dict[str, TensorInfo] | None = dict(tensors)
        #: Of all tensors, in order.
        self.names: Sequence[str] = list(self._made)
        self._numbers: dict[str, int] | None = None
        self._kinds: Sequence[Kind] = ()
        self._kind_of: Any = None  # an array of integers
        self._asked = 0
        self._found: dict[Callable[[Tensors], Any], Any] = {}

    @classmethod
    def of_columns(
        cls,
        names: Sequence[str],
        kinds: Sequence[Kind],
        kind_of: NDArray[np.int64],
        numbers: dict[str, int] | None = None,
    ) -> Table:
        """Of names, each there once, with the number of each one's kind, and that of each name."""
        made = cls(())
        made._numbers = numbers
        made._made, made.names, made._kinds, made._kind_of = None, names, kinds, kind_of
        return made

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """Without what was found, which whoever gets a copy finds again."""
        kept = {name: getattr(self, name) for name in self.__slots__ if name != "__weakref__"}
        return None, kept | {"_found": {}}

    @property
    def numbers(self) -> dict[str, int]:
        """Each tensor's number."""
        if self._numbers is None:
            self._numbers = dict(zip(self.names, range(len(self.names)), strict=True))
        return self._numbers

    def _infos(self) -> Iterator[TensorInfo]:
        """All tensors, each an object for as long as it is looked at."""
        if self._made is not None:
            return iter(self._made.values())
        dtypes, shapes = ([kind[part] for kind in self._kinds] for part in (0, 1))
        rows = self._kind_of.tolist()
        columns = self.names, map(dtypes.__getitem__, rows), map(shapes.__getitem__, rows)
        return map(partial(tuple.__new__, TensorInfo), zip(*columns, strict=True))

    def __getitem__(self, name: str) -> TensorInfo:
        if self._made is None:
            self._asked += 1
            if self._asked <= max(_SOME, len(self.names)):
                return TensorInfo(name, *self._kinds[self._kind_of[self.numbers[name]]])
            self._made = dict(zip(self.names, self._infos(), strict=True))
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in (self.numbers if self._made is None else self._made)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def keys(self) -> KeysView[str]:
        return (self.numbers if self._made is None else self._made).keys()

    def values(self) -> ValuesView[TensorInfo]:
        return _Values(self)

    def items(self) -> ItemsView[str, TensorInfo]:
        return _Items(self)

    def learn(self, find: Callable[[Tensors], T], found: T) -> None:
        """Keep what a function would find, and is known already."""
        self._found[find] = found

    def once(self, find: Callable[[Tensors], T]) -> T:
        """What a function finds, asked for the first time."""
        if find not in self._found:
            self._found[find] = find(self)
        found: T = self._found[find]
        return found


class _Values(ValuesView[TensorInfo]):
    """The tensors of a table: none is kept for having been looked at."""

    _mapping: Table

    def __iter__(self) -> Iterator[TensorInfo]:
        return self._mapping._infos()


class _Items(ItemsView[str, TensorInfo]):
    """The same with their names."""

    _mapping: Table

    def __iter__(self) -> Iterator[tuple[str, TensorInfo]]:
        return zip(self._mapping.names, self._mapping._infos(), strict=True)


def once(find: Callable[[Tensors], T], tensors: Tensors) -> T:
    """What a function finds out about tensors; of a table it is asked once."""
    return tensors.once(find) if isinstance(tensors, Table) else find(tensors)


def per_kind(find: Callable[[TensorInfo], T], tensors: Iterable[TensorInfo]) -> list[T]:
    """What dtype and shape alone tell of every tensor: it is found once for each kind."""
    known: dict[tuple[str, tuple[int, ...]], T] = {}
    made = []
    for tensor in tensors:
        kind = tensor[1:]
        if kind not in known:
            known[kind] = find(tensor)
        made.append(known[kind])
    return made


def table_bytes(tensors: Tensors) -> int:
    """Bytes that the data of tensors by name take together."""
    return once(_table_bytes, tensors)


def _table_bytes(tensors: Tensors) -> int:
    return sum(per_kind(attrgetter("nbytes"), tensors.values()))
