"""randes plot"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from randes_cli import MissingError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import BankReport, describe
from randes_cli.ops.distribution import stored_distribution
from randes_cli.stats.curves import Curves, lambda_curves
from randes_cli.views import figures
from randes_cli.views.text import human
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
        assert result == Result(0, "", f"{picture}  {human(picture.stat().st_size)}\n")
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


def drawn_text(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def report_of(path: Path) -> BankReport:
    with BankFile(path) as file:
        return describe(file)


def drawn(figure: Figure) -> Any:
    """The figure's renderer, after it was laid out."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return renderer


def test_the_cosine_picture_names_all_of_20_tasks_and_no_two_labels_overlap(
    tmp_path: Path,
) -> None:
    """Without numbers in its cells, it says what its colours mean."""
    report = report_of(make_bank(tmp_path, 20))
    with figures.settings():
        figure = figures.cosine_figure(report)
        renderer = drawn(figure)
    axis = figure.axes[0]
    labels = [label for label in axis.get_yticklabels() if label.get_text()]
    assert [label.get_text() for label in labels] == [task.name for task in report.tasks]
    most = float(np.abs(np.array(report.cosine_before) - np.eye(20)).max())
    assert axis.get_xlabel().endswith(f"blue: opposed; in full colour at {max(0.1, most):.2f}")
    boxes = sorted((label.get_window_extent(renderer) for label in labels), key=lambda b: b.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))


@pytest.mark.parametrize("tasks", [1, 2, 7, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_written_in_a_picture_is_cut(tmp_path: Path, kind: str, tasks: int) -> None:
    path = make_bank(tmp_path, tasks)
    report = report_of(path)
    names = {one.name: f"vit-base-patch16-224-{one.name}-finetuned" for one in report.tasks}
    report = replace(
        report, tasks=tuple(replace(one, name=names[one.name]) for one in report.tasks)
    )
    with BankFile(path) as file:
        curves, found = lambda_curves(file), stored_distribution(file)
    curves = replace(curves, by_task={names[n]: curve for n, curve in curves.by_task.items()})
    makers: dict[str, Callable[[], Figure]] = {
        "cosine": lambda: figures.cosine_figure(report),
        "layers": lambda: figures.layers_figure(report.rows, report.rows),
        "distribution": lambda: figures.distribution_figure(found),
        "size": lambda: figures.size_figure(report),
        "lambda": lambda: figures.lambda_figure(curves, {names["task-000"]: 0.5}),
    }
    make = makers[kind]
    with figures.settings():
        if tasks == 1 and kind in ("cosine", "distribution"):
            with pytest.raises(MissingError):
                make()
            return
        figure = make()
        renderer = drawn(figure)
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert box.x0 >= -0.01 and box.y0 >= -0.01
    assert box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def test_curves_that_coincide_are_told_apart_and_the_banks_own_coefficient_is_marked() -> None:
    line = tuple((n / 20, 1 - n / 40) for n in range(21))
    curves = Curves({"a": line, "b": line, "c": line}, measured=True)
    with figures.settings():
        figure = figures.lambda_figure(curves, dict.fromkeys("abc", 0.8))
    shown = [one for one in figure.axes[0].lines if str(one.get_label()) in "abc"]
    assert len({one.get_linewidth() for one in shown}) == len(shown) == 3
    assert len({(one.get_marker(), one.get_markevery()) for one in shown}) == 3
    assert "the bank's λ = 0.8" in " ".join(drawn_text(figure))
    rings = [one for one in figure.axes[0].lines if one.get_markerfacecolor() == "none"]
    assert {float(np.asarray(one.get_xdata())[0]) for one in rings} == {0.8}


def test_a_bank_without_tasks_is_not_drawn_empty(
    family: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    bank = tmp_path / "one.randes"
    words = [family / f"{name}.safetensors" for name in ("base", "a")]
    assert randes("pack", *words, "-o", bank).code == 0
    assert randes("remove", bank, "-t", "a").code == 0
    for kind in KINDS:
        found = randes("plot", bank, "--kind", kind, "-o", tmp_path / f"{kind}.svg")
        assert found.code == 5 and len(found.err.splitlines()) == 1, kind
        assert not (tmp_path / f"{kind}.svg").exists()
    assert randes("report", bank, "-o", tmp_path / "empty.html").code == 0


def test_a_picture_shows_the_banks_own_numbers(bank: Path) -> None:
    report = report_of(bank)
    shown = drawn_text(figures.cosine_figure(report))
    assert f"{report.cosine_before[0][1]:.3f}".replace("0.", ".", 1) in shown
    assert human(report.bank_bytes) in drawn_text(figures.size_figure(report))


def test_names_with_dollars_or_control_characters_are_drawn_as_they_are(bank: Path) -> None:
    report = report_of(bank)
    rows = [replace(report.rows[0], name=name) for name in ("a$\\frac{", "b\x1b\n$_$", "<script>")]
    assert figures.render(lambda: figures.layers_figure(rows, rows), "svg").startswith(b"<?xml")


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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "distribution"])
def test_a_picture_says_what_to_expect_in_the_words_of_inspect(
    bank: Path, randes: Callable[..., Result], tmp_path: Path, kind: str
) -> None:
    words = randes("inspect", bank, "--json").json["expect"]
    picture = tmp_path / "x.svg"
    assert randes("plot", bank, "--kind", kind, "-o", picture).code == 0
    drawn = " ".join(re.findall(r"<!-- (.*?) -->", picture.read_text("utf-8")))
    assert words and all(sentence in drawn for sentence in words)
