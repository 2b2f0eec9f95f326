from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Result
from tests.cli.render.test_bank import make_bank

KINDS = ["cosine", "layers", "distribution", "size", "lambda"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bank_draws_the_same_svg_without_a_date_or_a_link(
    bank: Path, randes: Callable[..., Result], tmp_path: Path, kind: str
) -> None:
    pictures = [tmp_path / f"{n}.svg" for n in (1, 2)]
    for picture in pictures:
        result = randes("plot", bank, "--kind", kind, "-o", picture)
        assert result == Result(0, "", "")
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    assert b"<dc:date>" not in first
    root = ElementTree.fromstring(first)
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith(("#", "data:image/png;")) for link in links)


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_other_formats_are_what_their_names_say_and_deterministic(
    bank: Path, randes: Callable[..., Result], tmp_path: Path, suffix: str, magic: bytes
) -> None:
    pictures = [tmp_path / f"{n}.{suffix}" for n in (1, 2)]
    for picture in pictures:
        assert randes("plot", bank, "-o", picture).code == 0
    assert pictures[0].read_bytes().startswith(magic)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def drawn_text(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def test_the_cosine_picture_names_all_of_20_tasks_and_no_two_labels_overlap(
    tmp_path: Path,
) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from randes_cli.files.bank import BankFile
    from randes_cli.ops.describe import describe
    from randes_cli.views.figures import STYLE, cosine_figure

    with BankFile(make_bank(tmp_path, 20)) as file:
        report = describe(file)
    with matplotlib.rc_context(STYLE):
        figure = cosine_figure(report)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    axis = figure.axes[0]
    labels = [label for label in axis.get_yticklabels() if label.get_text()]
    assert [label.get_text() for label in labels] == [task.name for task in report.tasks]
    boxes = sorted((label.get_window_extent(renderer) for label in labels), key=lambda b: b.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)


def test_a_picture_shows_the_banks_own_numbers(bank: Path) -> None:
    from randes_cli.files.bank import BankFile
    from randes_cli.ops.describe import describe
    from randes_cli.views import figures

    with BankFile(bank) as file:
        report = describe(file)
    shown = drawn_text(figures.cosine_figure(report))
    assert f"{report.cosine_before[0][1]:.3f}" in shown
    assert any(
        f"{report.bank_bytes / 1e3:.3g} kB" in t for t in drawn_text(figures.size_figure(report))
    )


def test_names_with_dollars_or_control_characters_are_drawn_as_they_are(bank: Path) -> None:
    from dataclasses import replace

    from randes_cli.files.bank import BankFile
    from randes_cli.ops.describe import describe
    from randes_cli.views.figures import layers_figure, render

    with BankFile(bank) as file:
        report = describe(file)
    rows = [replace(report.rows[0], name=name) for name in ("a$\\frac{", "b\x1b\n$_$", "<script>")]
    assert render(lambda: layers_figure(rows, rows), "svg").startswith(b"<?xml")


def test_against_adds_cosines_within_a_model(
    bank: Path, family: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    words = ["plot", bank, "--kind", "distribution", "-q"]
    pair = [x for n in "ab" for x in ("--against", f"{n}={family / f'{n}.safetensors'}")]
    assert randes(*words, *pair, "-o", tmp_path / "m.svg").code == 0
    assert randes(*words, "-o", tmp_path / "s.svg").code == 0
    assert (tmp_path / "m.svg").read_bytes() != (tmp_path / "s.svg").read_bytes()


def test_a_missing_matplotlib_is_named_with_its_remedy(
    bank: Path, randes: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = randes("plot", bank, "-o", tmp_path / "x.svg")
    assert result.code == 2
    assert result.err == "randes: plot needs matplotlib: pip install 'randes-cli[plot]'\n"
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "x.gif"], "x.gif: name a .svg, .png or .pdf file"),
        (["-o", "x"], "x: name a .svg, .png or .pdf file"),
        (["-o", "x.svg", "--against", "a=b"], "--against serves --kind distribution only"),
    ],
)
def test_words_that_do_not_fit_are_refused_before_anything_is_written(
    bank: Path, randes: Callable[..., Result], words: list[str], message: str
) -> None:
    result = randes("plot", bank, *words)
    assert (result.code, result.err) == (2, f"randes: {message}\n")


def test_an_existing_picture_is_replaced_by_force_only(
    bank: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    picture = tmp_path / "x.svg"
    picture.write_text("mine")
    assert randes("plot", bank, "-o", picture).code == 2
    assert picture.read_text() == "mine"
    assert randes("plot", bank, "-o", picture, "--force").code == 0
    assert picture.read_text().startswith("<?xml")
