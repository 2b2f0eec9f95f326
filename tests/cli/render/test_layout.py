from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from randes_cli.cli.render.heat import cell, full_scale, heatmaps
from randes_cli.cli.render.layout import Column, bar, in_lines, shorten, shorten_apart, table
from randes_cli.errors import printable


@given(st.text(max_size=60), st.integers(1, 40))
def test_shortened_text_fits_and_is_printable(text: str, width: int) -> None:
    made = shorten(text, width)
    assert cell_len(made) <= width
    assert made.isprintable()


def test_shortening_keeps_both_ends() -> None:
    assert shorten("model.layers.0.self_attn.q_proj.weight", 20) == "model….q_proj.weight"


def test_names_of_one_table_stay_apart_where_they_are_cut() -> None:
    types = [f"encoder.layer.*.{part}output.dense.weight" for part in ("attention.", "")]
    assert shorten(types[0], 26) == shorten(types[1], 26)
    assert shorten_apart(types, 26) == ["…ntion.output.dense.weight", "…yer.*.output.dense.weight"]
    ends = [f"{'a' * 30}.{part}.{'b' * 40}" for part in ("key", "query")]
    assert shorten_apart(ends, 20) == ["…aaaaaa.key.bbbbbbb…", "…aaaa.query.bbbbbbb…"]
    assert len(set(shorten_apart(["b" * 30, "b" * 40], 20))) == 2


@given(st.lists(st.text("abc.*層", min_size=1, max_size=40)), st.integers(1, 40))
def test_names_cut_together_fit_and_are_no_less_apart(names: list[str], width: int) -> None:
    made = shorten_apart(names, width)
    assert len(set(made)) >= len({shorten(name, width) for name in names})
    assert all(cell_len(name) <= width for name in made)


def test_safe_leaves_words_alone_and_spells_control_characters() -> None:
    assert printable("größe 層") == "größe 層"
    assert printable("a\nb\x9b\u2066") == "a\\nb\\x9b\\u2066"


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, ""), (0.5, "█████"), (1, "█" * 10), (7, "█" * 10)]
)
def test_a_bar_is_as_long_as_its_share(share: float, drawn: str) -> None:
    made = bar(share, 10, "red").plain
    assert made == drawn + "·" * (10 - len(drawn))


def test_a_bar_tells_eighths() -> None:
    assert bar(0.0625, 2, "red").plain == "▏·"


def test_a_table_too_wide_drops_columns_in_their_order_and_shortens_the_name() -> None:
    columns = [Column("name", name=True), Column("a"), Column("bb", drop=1), Column("cc", drop=2)]
    rows = [["x" * 30, "1", "22222", "33333"]]
    heads = [table(columns, rows, width)[0].plain.split() for width in (60, 40, 35, 20)]
    assert heads == [
        ["name", "a", "bb", "cc"],
        ["name", "a", "bb"],
        ["name", "a", "bb"],
        ["name", "a"],
    ]
    assert all(line.cell_len <= 20 for line in table(columns, rows, 20))


def test_numbers_in_cells_drop_their_leading_zero_and_the_sign_of_nothing() -> None:
    texts = [cell(v, 2, 1.0, diagonal=False).plain for v in (0.25, -0.25, -0.001, 1.0)]
    assert texts == ["  .25", " -.25", "  .00", " 1.00"]


def test_opposite_cosines_get_blue_and_vermilion() -> None:
    warm, cold = (str(cell(v, 2, 0.5, diagonal=False).style) for v in (0.5, -0.5))
    assert warm.endswith("#b04a00") and cold.endswith("#0072b2")


def _contrast(ink: str, ground: str) -> float:
    """Of two colours, as the web's guidelines for access define it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted(map(luminance, (ink, ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_cells_can_be_read_on_black_and_on_white_windows() -> None:
    for value in np.linspace(-1, 1, 41):
        style = str(cell(float(value), 2, 1.0, diagonal=False).style)
        if not style:  # noise is written in the window's own colours
            assert abs(value) < 0.15
            continue
        ink, ground = style.split(" on ")
        assert _contrast(ink, ground) >= 4.5
        assert _contrast(ground, "#ffffff") >= 3 and _contrast(ground, "#000000") >= 3


def test_a_wider_window_never_shows_fewer_digits() -> None:
    count = 6
    matrix = [[1.0 if r == c else 0.25 for c in range(count)] for r in range(count)]
    digits = []
    for width in range(40, 160):
        lines = heatmaps([f"task-{n}" for n in range(count)], range(count), matrix, matrix, width)
        digits.append(3 if any(".250" in line.plain for line in lines) else 2)
    assert digits == sorted(digits) and digits[-1] == 3


def test_a_wide_matrix_is_cut_into_blocks_that_cover_every_column() -> None:
    count = 40
    names = [f"t{n}" for n in range(count)]
    matrix = [[1.0 if r == c else 0.25 for c in range(count)] for r in range(count)]
    lines = heatmaps(names, range(count), matrix, matrix, 80)
    assert max(line.cell_len for line in lines) <= 80
    assert sum(line.plain.count(".25") for line in lines) == 2 * count * (count - 1)


def test_the_scale_ignores_the_diagonal_and_keeps_noise_pale() -> None:
    assert full_scale([[1.0, 0.03], [0.03, 1.0]]) == 0.1
    assert full_scale([[1.0, -0.4], [-0.4, 1.0]]) == 0.4


def test_table_cells_may_be_styled_text() -> None:
    line = table([Column("n", name=True), Column("v")], [["a", Text("1", "red")]], 20)[1]
    assert line.plain == "a  1"


@given(st.text("ab λ中-·", max_size=80), st.integers(4, 30), st.sampled_from(["", "  "]))
def test_lines_fit_and_have_every_word_in_order(text: str, width: int, indent: str) -> None:
    lines = in_lines(text, width, indent)
    assert all(cell_len(line) <= width for line in lines)
    short = [shorten(word, width - len(indent)) for word in text.split()]
    found = " ".join(lines).split()
    if max(map(cell_len, text.split()), default=0) <= width - len(indent):
        assert found == short == text.split()


def test_a_text_with_room_is_one_line_as_it_is() -> None:
    assert in_lines("as  it is ", 10) == ["as  it is "]
    assert in_lines("two-sided (shuffle none)", 18, "  ") == ["two-sided (shuffle", "  none)"]
    assert in_lines("keeps 97.6 % of it", 11) == ["keeps", "97.6 % of", "it"]


def test_titles_give_way_before_the_first_column_of_a_narrow_table() -> None:
    columns = [
        Column("bank", name=True),
        Column("× base", drop=2),
        Column("bits"),
        Column("groups"),
    ]
    columns += [Column("elements"), Column("gain kept"), Column("in measured families", drop=1)]
    rows = [["*102.67 kB", "1.721", "16", "12", "all", "100.0 %", "99.9–100.0 %"]]
    whole, narrow = (table(columns, rows, width) for width in (100, 41))
    assert whole[0].plain.split("  ")[0] == narrow[0].plain.split("  ")[0] == "bank"
    assert [line.plain for line in narrow] == [
        "bank        bits  groups  eleme…  gain k…",
        "*102.67 kB    16      12     all  100.0 %",
    ]
    assert whole[0].plain.split() == " ".join(column.title for column in columns).split()
