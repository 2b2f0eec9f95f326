"""How products of a mixed batch are cut, for kernels: what was fastest on a device."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

#: Codes that a unit of a stored matrix has, by bits (0: integers): a byte; rows are whole units.
PER = {0: 1, 1: 8, 2: 4, 3: 8, 4: 2, 8: 1}


class Form(NamedTuple):
    """How a product is cut.

    Attributes:
        rows: of weights, a tile of which a program takes.
        columns: of W₀, or units of codes, that it takes at once.
        parts: programs that share the columns of a tile.
        stages: loads that are under way at once.
        warps: of a program.
    """

    rows: int
    columns: int
    parts: int
    stages: int
    warps: int


class Order(NamedTuple):
    """How the kernels of a product follow one another, where each begins beside the one before.

    Attributes:
        base_first: programs of W₀ begin before those of codes, which fill the room that is left.
        ahead: bytes of W₀, of each row that a program takes, that `prepare` asks for before it
            waits; codes_ahead: whether programs of codes ask for all of theirs before they do.
    """

    base_first: bool = False
    ahead: int = 0
    codes_ahead: bool = False


#: Orders that were faster on a device, by the kind of shape (`shape_kind`), whether there are more
#: than 16 rows, and whether there are several groups of all elements. None was timed yet.
ORDERS: dict[tuple[int, bool, bool], Order] = {}
#: Forms of x W₀ᵀ for square, tall and wide matrices, with 16 rows and with more; see `shape_kind`.
BASE_FORMS = (
    (Form(64, 128, 2, 4, 4), Form(64, 128, 2, 3, 4), Form(64, 128, 4, 3, 4)),
    (Form(64, 64, 2, 6, 4), Form(64, 64, 1, 6, 4), Form(64, 128, 2, 4, 4)),
)
#: The same of codes, by bits, where groups have 16 rows at most, and where they have more.
CODE_FORMS: tuple[dict[int, tuple[Form, Form, Form]], ...] = (
    {
        0: (Form(64, 128, 4, 3, 4),) * 3,
        1: (Form(64, 64, 2, 3, 4),) * 3,
        2: (Form(64, 128, 4, 3, 4), Form(64, 64, 4, 3, 2), Form(64, 128, 2, 3, 4)),
        4: (Form(64, 128, 4, 3, 2), Form(64, 32, 4, 3, 2), Form(64, 128, 4, 3, 2)),
        8: (Form(64, 128, 8, 3, 2),) * 3,
    },
    {
        0: (Form(64, 128, 2, 3, 4), Form(64, 128, 1, 3, 4), Form(64, 128, 4, 3, 4)),
        1: (Form(64, 32, 2, 3, 4), Form(64, 32, 1, 3, 4), Form(128, 32, 4, 3, 8)),
        2: (Form(64, 64, 2, 3, 4), Form(64, 64, 1, 3, 4), Form(128, 64, 4, 2, 8)),
        4: (Form(128, 64, 4, 3, 8), Form(64, 64, 2, 3, 4), Form(128, 64, 4, 3, 8)),
        8: (Form(64, 128, 4, 3, 4), Form(64, 128, 2, 3, 4), Form(64, 128, 4, 3, 4)),
    },
)


def base_form(shape: tuple[int, int], batch: int, size: int = 2) -> Form:
    """How x W₀ᵀ is cut: what was fastest for a 7B Llama on an H200 (`benchmarks/gpu.py`).

    Numbers of four bytes (`size`) are multiplied without tensor cores, in smaller tiles.
    """
    form = BASE_FORMS[batch > 16][shape_kind(shape)]
    return _spread(form if size == 2 else Form(64, 32, 2, 3, 4), shape[0])


def code_form(
    shape: tuple[int, int], bits: int, every: int, groups: int, longest: int, size: int = 2
) -> Form:
    """The same of products with codes, of groups of at most `longest` rows."""
    kind, per = shape_kind(shape), PER[bits]
    if size > 2 or bits == 3:
        form = Form(64, 32, 2, 2, 4)
    elif groups == 1 or longest > 8:  # others were found for eight groups of at most eight rows
        form = CODE_FORMS[longest > 16][bits][kind]
    elif every >= 4:
        form = Form(64, max(32, 128 // per), 1, 2, 2)
    elif bits == 1:  # groups share the multiprocessors as parts do
        form = Form(64, 64, 2 if kind == 2 else 1, 3, 4)
    else:
        form = Form(64, min(128, 512 // per), 1 if kind == 1 else 2, 3, 4)
    return _spread(form, shape[0] * groups)


def order_of(shape: tuple[int, int], every: int, groups: int, batch: int) -> Order:
    """In which order kernels are launched, and what is asked for ahead."""
    return ORDERS.get((shape_kind(shape), batch > 16, groups > 1 and every == 1), Order())


def shape_kind(shape: tuple[int, int]) -> int:
    """0: square; 1: tall, with more tiles than an H200 has multiprocessors; 2: wide."""
    tall = shape[0] > 64 * 132
    return 1 if tall else 2 * (shape[1] > 8192)


def _spread(form: Form, rows: int) -> Form:
    """In more parts where there are fewer tiles than forms were found for."""
    return form._replace(parts=form.parts * max(1, 64 * 64 // max(rows, 64)))


def over(count: int, size: int) -> int:
    """How many of a size there are (Triton's own cost ten times as much)."""
    return -(-count // size)


class Cut(NamedTuple):
    """How the matrices of a product are cut.

    Attributes:
        of_base: the form of W₀; `of_codes`: of codes; each with no more parts than blocks.
        units: of a row of codes; `width`: codes of it, made up to whole blocks.
        height: rows of a residue.
    """

    of_base: Form
    of_codes: Form
    units: int
    width: int
    height: int


@lru_cache(maxsize=1024)
def cut(shape: tuple[int, int], bits: int, every: int, of_base: Form, of_codes: Form) -> Cut:
    """A product of W₀ and codes in these forms."""
    units = over(shape[1], every) // PER[bits]
    blocks = over(units, of_codes.columns)
    return Cut(
        of_base._replace(parts=min(of_base.parts, over(shape[1], of_base.columns))),
        of_codes._replace(parts=min(of_codes.parts, blocks)),
        units,
        blocks * of_codes.columns * PER[bits],
        over(shape[0], every),
    )


def chosen(
    shape: tuple[int, int],
    bits: int,
    every: int,
    groups: int,
    batch: int,
    longest: int,
    size: int,
    forms: tuple[Form, Form] | None,
) -> Cut:
    """The matrices of a product in these forms, or those that were fastest."""
    found = forms or (
        base_form(shape, batch, size),
        code_form(shape, bits, every, groups, longest, size),
    )
    return cut(shape, bits, every, *found)
