from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from rich.text import Text
from safetensors.torch import save_file

from randes_cli import TaskInput, Transform, pack
from randes_cli.cli.render.bank import bank_view, task_view
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import BankReport, describe, describe_task
from randes_cli.specs import PackOptions


def make_bank(folder: Path, tasks: int, *, layers: int = 3, preset: str = "hankel") -> Path:
    """A bank of `tasks` fine-tunes, every second of which shares a direction with the others."""
    path = folder / "bank.randes"
    path.write_bytes(_packed(tasks, layers, preset))
    return path


@cache
def _packed(tasks: int, layers: int, preset: str) -> bytes:
    with TemporaryDirectory() as folder:
        return _pack(Path(folder), tasks, layers, preset).read_bytes()


def _pack(folder: Path, tasks: int, layers: int, preset: str) -> Path:
    random = torch.Generator().manual_seed(1)
    shapes = {f"h.{i}.{kind}.weight": (24, 16) for i in range(layers) for kind in ("attn", "mlp")}
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    shared = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(base, folder / "base.safetensors")
    inputs = []
    for number in range(tasks):
        noise = {n: torch.randn(v.shape, generator=random) for n, v in base.items()}
        share = 0.02 * (number % 2)
        task = {
            n: v + 0.01 * (1 + number % 3) * noise[n] + share * shared[n] for n, v in base.items()
        }
        path = folder / f"t{number}.safetensors"
        save_file(task, path)
        inputs.append(TaskInput(f"task-{number:03}", str(path)))
    options = PackOptions(Transform.from_preset(preset))
    pack(str(folder / "base.safetensors"), inputs, folder / "bank.randes", options)
    return folder / "bank.randes"


def report_of(bank: Path, by: str = "type") -> BankReport:
    with BankFile(bank) as file:
        return describe(file, by=by)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def widest(lines: list[Text]) -> int:
    return max(line.cell_len for line in lines)


@pytest.mark.parametrize("tasks", [1, 2, 8, 13, 100])
@pytest.mark.parametrize("full", [False, True])
def test_every_line_fits_and_carries_no_blanks_at_its_end(
    tmp_path: Path, tasks: int, full: bool
) -> None:
    report = report_of(make_bank(tmp_path, tasks))
    for width in (80, 100, 137):
        lines = bank_view(report, width=width, full=full)
        assert widest(lines) <= width
        assert all(line == line.rstrip() for line in plain(lines) if not line.endswith("·"))


def test_nothing_but_names_is_cut_on_a_narrow_window(tmp_path: Path) -> None:
    report = report_of(make_bank(tmp_path, 8))
    wide = plain(bank_view(report, width=100))
    lines = bank_view(report, width=60)
    text = " ".join(" ".join(plain(lines)).split())
    assert widest(lines) <= 60
    for start in ("cosines between deltas", "what other banks would keep"):
        assert next(line for line in wide if line.startswith(start)) in text
    transform = next(line for line in wide if line.startswith("transform"))
    assert " ".join(transform.split()) in text


def test_eight_tasks_are_shown_side_by_side_at_120_columns_and_stacked_at_80(
    tmp_path: Path,
) -> None:
    report = report_of(make_bank(tmp_path, 8))
    wide, narrow = (plain(bank_view(report, width=width)) for width in (120, 80))
    assert any("before" in line and "during retrieval" in line for line in wide)
    assert "before" in narrow and "during retrieval" in narrow
    row = next(line for line in wide if line.startswith("1 task-001"))
    expected = f"{report.cosine_before[1][3]:.3f}".replace("0.", ".", 1)
    assert row.split()[5] == expected
    assert len(row.split()) == 2 + 8 + 8


def test_a_hundred_tasks_show_the_worst_and_the_closest_and_say_what_is_left_out(
    tmp_path: Path,
) -> None:
    report = report_of(make_bank(tmp_path, 100))
    lines = plain(bank_view(report, width=100))
    assert "… 80 more (--full)" in lines
    assert "the 12 of 100 tasks that are most alike (--full shows all)" in lines
    worst = sorted(report.tasks, key=lambda task: task.predicted_cosine)[:20]
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("task ")) + 1 :]
    assert [line.split()[0] for line in table[:20]] == [task.name for task in worst]
    full = plain(bank_view(report, width=100, full=True))
    assert sum(line.startswith("task-") for line in full) == 100
    assert not any("--full" in line for line in full)


def test_one_task_has_no_matrix_and_comes_back_whole(tmp_path: Path) -> None:
    lines = plain(bank_view(report_of(make_bank(tmp_path, 1)), width=100))
    assert "the task keeps all of its accuracy: 99–100 % in measured cases" in lines
    assert "predicted cosine 1.000; why: docs/method.md" in " ".join(map(str.strip, lines))
    assert not any("cosines between deltas" in line for line in lines)


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("index", lambda report, n: n),
        ("quality", lambda report, n: report.tasks[n].predicted_cosine),
        ("energy", lambda report, n: -report.details[n].norm),
        ("name", lambda report, n: report.tasks[n].name),
    ],
)
def test_sort_orders_the_tasks(tmp_path: Path, sort: str, key: object) -> None:
    report = report_of(make_bank(tmp_path, 7))
    wanted = sorted(range(7), key=lambda n: key(report, n))  # type: ignore[operator]
    lines = plain(bank_view(report, width=100, sort=sort))
    assert [int(line[5:8]) for line in lines if line.startswith("task-")] == wanted


def test_groups_come_with_the_most_interference_first(tmp_path: Path) -> None:
    report = report_of(make_bank(tmp_path, 4, layers=20), by="layer")
    lines = plain(bank_view(report, width=100))
    start = lines.index("predicted by layer at λ = 1, most interference first") + 2
    shown = [float(line.split()[2]) for line in lines[start : start + 12]]
    assert shown == sorted(shown)
    assert lines[start + 12] == "… 8 more (--full)"


def test_names_with_escapes_reach_the_terminal_as_plain_words(tmp_path: Path) -> None:
    report = report_of(make_bank(tmp_path, 2))
    row = replace(report.rows[0], name="evil\x1b[2J\x07\u202e.weight")
    report = replace(report, rows=(row,), base_source="\x1b]0;owned\x07base")
    text = "\n".join(plain(bank_view(report, width=140)))
    assert "evil\\x1b[2J\\x07\\u202e.weight" in text
    assert not set(text) & set("\x1b\x07\u202e")


def test_one_tasks_view_has_its_source_neighbours_and_groups(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, 5)
    with BankFile(bank) as file:
        rows = describe_task(file, "task-003", by="type")
    report = report_of(bank)
    lines = plain(task_view(report, "task-003", rows, width=80))
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("source") and "t3.safetensors" in line for line in lines)
    others = [n for n in range(5) if n != 3]
    nearest = max(others, key=lambda n: abs(report.cosine_before[3][n]))
    after = lines[next(n for n, line in enumerate(lines) if line.startswith("other task")) + 1]
    assert after.split()[0] == f"task-{nearest:03}"
    assert {row.name for row in rows} == {"h.*.attn.weight", "h.*.mlp.weight"}


def test_plain_task_arithmetic_shows_cosines_that_stay(tmp_path: Path) -> None:
    report = report_of(make_bank(tmp_path, 4, preset="ta"))
    assert report.cosine_before == report.cosine_during
    assert abs(report.cosine_before[1][3]) > 0.3
