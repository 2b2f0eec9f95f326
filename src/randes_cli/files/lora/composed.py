"""Updates that are more than B · A: LoHa, LoKr, factors with a core, whole differences."""

from __future__ import annotations

from math import prod

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.lora.view import Matrix, Pair, Update, View

#: The matrices of a kind by their parts: whole; left and right; and the core between these.
_KINDS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "LoHa": (
        ("", "hada_w1_a", "hada_w1_b", "hada_t1"),
        ("", "hada_w2_a", "hada_w2_b", "hada_t2"),
    ),
    "LoKr": (
        ("lokr_w1", "lokr_w1_a", "lokr_w1_b", ""),
        ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ),
    "LoCon": (("", "B", "A", "core"),),
    "difference": (("weight", "", "", ""),),
}


def composed(
    view: View, module: str, pair: Pair, shape: tuple[int, ...], place: tuple[int, int] | None
) -> Update:
    """The update of a weight of this shape, or of these rows of one.

    Raises CheckpointError, MismatchError.
    """
    kind, matrices = _matrices(view, module, pair)
    out, into = matrices[0].shape
    if kind == "LoKr":
        out, into = out * matrices[1].shape[0], into * matrices[1].shape[1]
    first, last, whole = view.config.pieces.get(module, (0, out, out))
    one_size = kind == "LoKr" or len({matrix.shape for matrix in matrices}) == 1
    fits = shape[:1] == (last - first,) and prod(shape[1:]) == into
    if not (one_size and whole == out and fits):
        raise MismatchError(
            f"{view.source}: {module} adapts a weight of {[out, into]}, "
            f"the base's has {list(shape)}"
        )
    if kind == "LoKr" and view.config.rank is not None and len(view.shape(matrices[1].left)) == 3:
        raise CheckpointError(
            f"{view.source}: {module} is a LoKr of a whole convolution along one side, whose "
            "elements PEFT orders otherwise; merge it with PEFT and give the full checkpoint"
        )
    name, rows = matrices[0].left, None if last - first == out else (first, last)
    scaling = _scaling(view, module, kind, matrices)
    return Update(
        name, name, scaling, rows=rows, magnitude=pair.get("m"), place=place, matrices=matrices,
        kind=kind,
    )  # fmt: skip


def _matrices(view: View, module: str, pair: Pair) -> tuple[str, tuple[Matrix, ...]]:
    """The one kind whose parts these are, and its matrices."""
    parts = pair.keys() - {"bias", "own bias", "m"}
    for kind, names in _KINDS.items():
        if parts <= {part for one in names for part in one}:
            found = tuple(filter(None, (_matrix(view, pair, one) for one in names)))
            if len(found) == len(names) and parts:
                return kind, found
    raise CheckpointError(
        f"{view.source}: {module} lacks a factor, or they do not fit one another "
        f"({', '.join(f'{part} {list(view.shape(pair[part]))}' for part in sorted(parts))})"
    )


def _matrix(view: View, pair: Pair, names: tuple[str, str, str, str]) -> Matrix | None:
    """A matrix of these parts; None where one is lacking, too many, or of another size."""
    whole, left, right, core = (pair.get(name) for name in names)
    if whole is not None:
        shape = view.shape(whole)
        alone = left is None and right is None and core is None
        return Matrix(whole, (shape[0], prod(shape[1:]))) if alone and shape else None
    if left is None or right is None:
        return None
    a, b, inner, turned = view.shape(left), view.shape(right), 1, False
    rank = b[0] if b else 0
    if core is not None:
        middle, turned = view.shape(core), names[3] != "core"
        if middle[:2] != (rank, rank):
            return None
        inner = prod(middle[2:])
    if not a or not rank:
        return None
    out, ours = (prod(a[1:]), a[0]) if turned else (a[0], prod(a[1:]))
    if ours != rank:
        return None
    return Matrix(left, (out, prod(b[1:]) * inner), right, core, rank, turned)


def _scaling(view: View, module: str, kind: str, matrices: tuple[Matrix, ...]) -> float:
    """α / r; 1 of whole differences, and of a LoKr without a rank where no configuration has it."""
    ranks = {matrix.rank for matrix in matrices if matrix.rank is not None}
    expected, alpha = view.config.expected_rank(module), view.alpha(module)
    if expected is not None:
        ranks.add(expected)
    if len(ranks) > 1:
        raise CheckpointError(
            f"{view.source}: {module} has factors of rank {' and '.join(map(str, sorted(ranks)))}"
        )
    if kind == "difference" or not ranks:
        return 1.0
    if expected is None and alpha is None:
        raise CheckpointError(f"{view.source}: {module} has no alpha, so nothing tells its scaling")
    return view.config.scaling(module, ranks.pop(), alpha)
