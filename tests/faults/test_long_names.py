"""Names as long as the file system takes them: what is made beside a file has a name that fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from randes_cli import UsageError, add, pack, remove, seal
from randes_cli.cli.main import run
from randes_cli.files.hidden import TEMPORARY, is_temporary, is_under_way, lock_name, sibling
from tests.checkpoints import save_family
from tests.faults.test_outputs import ENDINGS, WRITERS

MOST = 255
CASES = {**WRITERS, "convert": ["convert", "{B}", "--single-file", "-o", "{out}"]}


def name(size: int, letter: str, ending: str) -> str:
    """A name of so many bytes."""
    count, rest = divmod(size - len(ending), len(os.fsencode(letter)))
    return letter * count + "x" * rest + ending


@pytest.mark.parametrize("letter", ["a", "😀"])
@pytest.mark.parametrize("case", CASES)
def test_every_command_reads_and_writes_the_longest_names(
    case: str, letter: str, tmp_path: Path
) -> None:
    single, half, other = save_family(tmp_path, {"h.w": [64, 48]}, ["single", "half", "other"])
    base = tmp_path / name(MOST - 1, letter, ".safetensors")
    (tmp_path / "base.safetensors").rename(base)
    single = single.rename(tmp_path / name(MOST - 2, letter, ".safetensors"))
    bank = tmp_path / name(MOST - 3, letter, ".randes")
    pack(base, {"single": single, "half": half}, bank)
    out = tmp_path / name(MOST, letter, ENDINGS.get(case, ".randes"))
    places = {"B": bank, "base": base, "single": f"single={single}", "out": out}
    words = [word.format(**places) for word in CASES[case]]
    assert run([*words, "-q"]) == 0
    assert run(["add", str(bank), f"other={other}", "-q"]) == 0
    assert (
        run(
            [
                "tune",
                str(bank),
                "--evaluate",
                "sh -c 'echo 1' {checkpoint}",
                "--grid",
                "1:1:1",
                "-q",
            ]
        )
        == 0
    )
    assert set(tmp_path.iterdir()) == {base, single, half, other, bank, out}


def test_a_name_that_only_the_file_itself_could_have_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (task,) = save_family(tmp_path, {"h.w": [64, 48]}, ["a"])
    base, cut = tmp_path / "base.safetensors", ["--max-shard-size", "1kB"]
    bank = tmp_path / name(MOST, "a", ".randes")
    for words in (
        ["pack", str(base), str(task), "-o", str(bank), *cut],
        ["pack", str(base), str(task), "-o", f"{bank}s"],
    ):
        assert run([*words, "-q"]) == 2
        assert "a longer name than the file system takes" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == {base, task}


def test_an_edit_in_python_of_such_a_name_is_refused_alike() -> None:
    bank = "n" * (MOST + 1)
    for edit in (
        lambda: add(bank, ["a"]),
        lambda: remove(bank, ["a"]),
        lambda: seal(bank, None, 2),
    ):
        with pytest.raises(UsageError, match="a longer name than the file system takes"):
            edit()


def test_hidden_names_fit_and_are_each_files_own() -> None:
    long, like = (Path(f"{'漢' * 80}{end}") for end in "ab")
    passing = sibling(long)
    nested = sibling(passing)
    assert nested.name.endswith(TEMPORARY) and len(os.fsencode(nested.name)) <= 143
    for path in (passing, nested):
        assert is_under_way(path.name, long) and not is_under_way(path.name, like)
    assert lock_name(long) != lock_name(like)
    brief = Path("x.randes")
    assert lock_name(brief).name == ".x.randes.lock"
    assert is_under_way(sibling(sibling(brief)).name, brief)


def test_a_file_is_known_for_one_under_way_by_both_ends_of_its_name() -> None:
    names = (".x.randes.0a1b.randes-tmp", ".gitkeep", "x.randes-tmp", "x.randes")
    assert [*filter(is_temporary, names)] == [names[0]]
    others = (".y.randes.0a1b.randes-tmp", ".x.randes.lock", ".x.randes2.0a1b.randes-tmp")
    assert [n for n in (*names, *others) if is_under_way(n, Path("x.randes"))] == [names[0]]
