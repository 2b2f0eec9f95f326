"""What the tables of `live/kernels/forms.py` should say by what `gpu_forms.py` has timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf, nan

from gpu_figures import step_name

from randes_cli.live.kernels.forms import Form, Order, base_form, code_form, shape_kind

#: Forms of W₀ and of codes, and an order.
Taken = tuple[Form, Form, Order]
#: By shape of matrix, and by rows, bits, groups, share and goal: times beside one model.
Found = dict[tuple[tuple[int, int], tuple[int, int, int, int, float]], dict[Taken, float]]


def advice(found: Found, layer: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Lines of the tables, of each shape and number of rows; then what steps would take."""
    chosen = {}
    for shape, rows in dict.fromkeys((shape, kind[0]) for shape, kind in found):
        given = {k[1]: v for k, v in found.items() if k[0] == shape and k[1][0] == rows and v}
        base = _best(given.values(), lambda taken: taken[0])
        where = f"[{rows > 16:d}][{shape_kind(shape)}]"
        same = base == base_form(shape, rows)
        yield f"BASE_FORMS{where} = {base}{' (as it is)' * same}"
        for several in (False, True):
            some = {
                kind: {taken: time for taken, time in times.items() if taken[0] == base}
                for kind, times in given.items()
                if (kind[2] > 1 and kind[3] == 1) == several
            }
            if not some:
                continue
            order = _best(some.values(), lambda taken: taken[2])
            yield f"ORDERS[{shape_kind(shape)}, {rows > 16}, {several}] = {order}"
            for kind, times in some.items():
                left = {taken[1]: time for taken, time in times.items() if taken[2] == order}
                if not left:
                    continue
                code = min(left, key=lambda form: left[form])
                chosen[shape, kind] = left[code]
                same = code == code_form(shape, kind[1], kind[3], kind[2], kind[0] // kind[2])
                yield f"  codes, {step_name(*kind[:4])}: {code}{' (as it is)' * same}"
    for kind in dict.fromkeys(kind for _, kind in found):
        before = [next(iter(found[shape, kind].values()), nan) for shape in layer]
        after = [chosen.get((shape, kind), nan) for shape in layer]
        size = [rows * columns for rows, columns in layer]
        told = f"{_mean(before, size):.2f} now, {_mean(after, size):.2f} so (goal {kind[4]:.2f})"
        yield f"{step_name(*kind[:4])}: {told}"


def _best(
    times: Iterable[dict[Taken, float]], part: Callable[[Taken], Form | Order]
) -> Form | Order:
    """What all kinds together are fastest with, where each takes the best of the rest."""
    least: list[dict[Form | Order, float]] = []
    for one in times:
        least.append({})
        for taken, time in one.items():
            least[-1][part(taken)] = min(time, least[-1].get(part(taken), time))
    choices = {choice: None for one in least for choice in one}
    return min(choices, key=lambda choice: sum(one.get(choice, inf) for one in least))


def _mean(values: Sequence[float], size: Sequence[int]) -> float:
    """Of times beside one model, whose own are about as the sizes of matrices."""
    return sum(v * s for v, s in zip(values, size, strict=True)) / sum(size)
