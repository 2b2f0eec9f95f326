"""randes report"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.ops.distribution import stored_distribution
from randes_cli.stats.curves import lambda_curves
from randes_cli.views.page import PageData, report_page
from randes_cli.views.text import human
from tests.axe import violations
from tests.browser import Page
from tests.cli.conftest import Result
from tests.cli.render.test_bank import make_bank

EVIL = "</script><script>window.owned=1</script><img src=x onerror='window.owned=1'>\"'&"
_VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps tags, attributes and table cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(bank: Path, *, hostile: bool = False) -> str:
    with BankFile(bank) as file:
        report = describe(file)
        layers = describe(file, by="layer").rows
        data = PageData(report, layers, lambda_curves(file), stored_distribution(file))
    if hostile:
        details = tuple(replace(one, source=EVIL) for one in report.details)
        tasks = tuple(replace(one, name=EVIL + str(one.index)) for one in report.tasks)
        rows = (*report.rows, replace(report.rows[0], name=EVIL))
        curves = replace(data.curves, by_task={EVIL: ((0.0, 1.0), (1.0, 2.0))})
        report = replace(
            report,
            bank=f"/x/{EVIL}.randes",
            base_source=EVIL,
            tasks=tasks,
            details=details,
            rows=rows,
            targets=EVIL,
        )
        data = PageData(report, (*layers, rows[-1]), curves, data.distribution)
    return report_page(data)


def check_alone(page: str) -> Reader:
    """The page nests, has a policy, and asks for nothing outside itself."""
    read = Reader(page)
    policy = next(a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attributes in read.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            assert name != "style"
            if name in ("href", "src"):
                assert (value or "").startswith("data:"), f"{tag} {name}={value}"
    assert [tag for tag, _ in read.tags].count("script") == 2
    return read


def test_the_page_is_whole_and_needs_nothing_else(
    bank: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    result = randes("report", bank, "-o", out)
    assert result == Result(0, "", f"{out}  {human(out.stat().st_size)}\n")
    assert out.read_text("utf-8") == page_of(bank)  # twice the same
    read = check_alone(out.read_text("utf-8"))
    for word in ("bank.randes", "h.*.w.weight", "layer 3", "a.safetensors", "16 bits"):
        assert any(word in text for text in read.texts), word


def test_sealed_groups_are_named_on_the_page_and_in_the_terminal(
    bank: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.randes"
    assert randes("seal", bank, "--bits", "2", "-o", sealed, "-q").code == 0
    assert "group 0 at 2 bits" in "".join(Reader(page_of(sealed)).texts)
    assert "group 0 sealed at 2 bits" in randes("inspect", sealed).out


@pytest.mark.parametrize("tasks", [1, 2, 11, 30])
def test_pages_of_few_and_many_tasks_nest(tmp_path: Path, tasks: int) -> None:
    read = check_alone(page_of(make_bank(tmp_path, tasks)))
    heats = [attributes for _, attributes in read.tags if "data-key" in attributes]
    assert len(heats) == (2 if tasks > 1 else 0)
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert images and all(image["alt"] for image in images)


def test_without_matplotlib_the_page_has_its_tables_and_says_what_draws(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    read = check_alone(page_of(bank))
    assert "img" not in [tag for tag, _ in read.tags]
    assert any("pip install 'randes-cli[plot]'" in text for text in read.texts)
    assert any(attributes.get("id") == "tasks" for _, attributes in read.tags)


def test_the_first_screen_says_what_is_in_it_how_good_it_is_and_what_to_do(
    bank: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    with BankFile(bank) as file:
        report = describe(file)
    first = "".join(Reader(page_of(bank)).texts).split("What is in it")[0]
    assert f"{len(report.tasks)} models of base.safetensors in" in first
    for task in report.tasks:
        assert f"{task.name}\nkeeps {task.verdict}" in first or task.lost in first
    words = first.split("randes unpack bank.randes ")[1].split()[:3]
    words = ["unpack", str(bank), *words[:2], str(tmp_path / "out")]
    assert randes(*words).code == 0


def test_hostile_names_are_words_in_the_text_alone(tmp_path: Path, tab: Page | None) -> None:
    page = page_of(make_bank(tmp_path, 3), hostile=True)
    read = check_alone(page)
    assert EVIL in "".join(read.texts)
    if tab is None:
        return
    (tmp_path / "evil.html").write_text(page, "utf-8")
    tab.events.clear()
    tab.resize(1200, 900)
    tab.open((tmp_path / "evil.html").as_uri())
    assert tab.run("window.owned") is None
    assert tab.run("document.querySelectorAll('img:not([src^=\"data:image/svg\"])').length") == 0
    tab.point(".heat[data-key=before]", 0.95, 0.95)
    assert EVIL in tab.run("document.getElementById('tip').textContent")
    assert tab.run("window.owned") is None
    assert tab.complaints() == []


def column(tab: Page, table: str, place: int) -> list[str]:
    found: list[str] = tab.run(
        f"Array.from(document.querySelectorAll('#{table} tbody tr'), "
        f"row => row.cells[{place}].innerText)"
    )
    return found


def test_a_hundred_tasks_load_in_a_second_sort_and_say_what_is_under_the_pointer(
    tmp_path: Path, tab: Page | None
) -> None:
    bank = make_bank(tmp_path, 100)
    page = page_of(bank)
    check_alone(page)
    assert len(page) < 2_000_000
    if tab is None:
        return
    with BankFile(bank) as file:
        report = describe(file)
    (tmp_path / "page.html").write_text(page, "utf-8")
    tab.events.clear()
    tab.resize(1200, 900)
    tab.open((tmp_path / "page.html").as_uri())
    names = [task.name for task in report.tasks]
    assert column(tab, "tasks", 0) == names
    tab.click("#tasks th:nth-child(3) button")
    rising = [float(cell) for cell in column(tab, "tasks", 2)]
    assert rising == sorted(rising)
    assert tab.run("document.querySelector('#tasks th:nth-child(3)').ariaSort") == "ascending"
    tab.click("#tasks th:nth-child(3) button")
    assert [float(cell) for cell in column(tab, "tasks", 2)] == rising[::-1]
    tab.click("#tasks th:nth-child(1) button")
    assert column(tab, "tasks", 0) == sorted(names)
    tab.click("#layers th:nth-child(8) button")
    tab.point(".heat[data-key=during]", 0.995, 0.005)
    tip = tab.run("document.getElementById('tip').textContent")
    assert tip == "" or tip.startswith("task-000 × task-099")
    left, top, width, height = map(
        float, tab.run("document.querySelector('.heat[data-key=during]').dataset.box").split()
    )
    place = left + 41.5 / 100 * width, top + 7.5 / 100 * height
    tab.point(".heat[data-key=during]", *place)
    wanted = f"{report.cosine_before[7][41]:.4f} → {report.cosine_during[7][41]:.4f}"
    tip = tab.run("document.getElementById('tip').textContent")
    assert tip == f"task-007 × task-041: {wanted}"
    assert tab.run("document.getElementById('tip').hidden") is False
    tab.point("h1", 0.5, 0.5)
    assert tab.run("document.getElementById('tip').hidden") is True
    assert tab.complaints() == []


@pytest.fixture(scope="module")
def of_eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page = folder / "page.html"
    page.write_text(page_of(make_bank(folder, 8)), "utf-8")
    check_alone(page.read_text("utf-8"))
    return page


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (820, False), (390, True)])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window_in_light_and_dark_and_keeps_nobody_out(
    of_eight: Path, tab: Page | None, width: int, phone: bool, dark: bool
) -> None:
    if tab is None:
        return
    tab.resize(width, 800, dark=dark, phone=phone)
    tab.open(of_eight.as_uri())
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = (
        sum(map(int, tab.run(f"getComputedStyle(document.body).{key}")[4:-1].split(",")))
        for key in ("backgroundColor", "color")
    )
    low, high = (ground, ink) if dark else (ink, ground)
    assert low < 150 and high > 550
    assert violations(tab) == []
    # What matters most of a task is in the window, however narrow it is.
    kept = "document.querySelector('#tasks tbody td:nth-child(2)').getBoundingClientRect().right"
    assert tab.run(f"{kept} <= innerWidth")


def test_long_names_wrap_and_a_cut_table_can_be_scrolled_by_keys(
    tmp_path: Path, tab: Page | None
) -> None:
    page = page_of(make_bank(tmp_path, 3)).replace("task-001", "-".join(["long"] * 20))
    (tmp_path / "page.html").write_text(page, "utf-8")
    if tab is None:
        check_alone(page)
        return
    tab.resize(390, 800, phone=True)
    tab.open((tmp_path / "page.html").as_uri())
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    name = "document.querySelector('#tasks tbody tr:nth-child(2) td')"
    assert tab.run(f"{name}.scrollWidth <= {name}.clientWidth")
    assert tab.run(
        "Array.from(document.querySelectorAll('.scroll'), e => e.tabIndex === 0).every(Boolean)"
    )


def test_an_existing_page_is_replaced_by_force_only(
    bank: Path, randes: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    out.write_text("mine")
    assert randes("report", bank, "-o", out).code == 2
    assert out.read_text() == "mine"
    assert randes("report", bank, "-o", out, "--force", "--json").json["bytes"] == len(
        out.read_bytes()
    )


def test_a_report_under_the_name_of_another_kind_of_file_is_refused(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    for name in ("r.txt", "r.pdf", "r.md", "r.html.json"):
        refused = randes("report", bank, "-o", family / name)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == f"randes: {family / name}: the report is a page: name a .html file\n"
        assert not (family / name).exists()
    for name in ("r.HTM", "r"):
        assert randes("report", bank, "-o", family / name).code == 0
