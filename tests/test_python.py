"""The Python side: the same verbs as the command line, typed, with everything public exported."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import randes_cli
from randes_cli import errors
from tests.checkpoints import Packer, perturbed, random_state, retrieve
from tests.scripts import script

ROOT = Path(__file__).parents[1]
CLIENT = Path(__file__).with_name("client.py")
SHAPES = {f"layers.{layer}.weight": [16, 8] for layer in range(3)}


def commands() -> set[str]:
    """The commands that `randes --help` lists."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    return set(re.findall(r"^## randes ([a-z]+)$", page, re.M))


def test_every_command_is_a_function_and_every_function_a_command() -> None:
    functions = {n for n in randes_cli.__all__ if inspect.isfunction(getattr(randes_cli, n))}
    assert commands() == functions - {"attach"}


def test_every_error_is_exported() -> None:
    named = {
        name
        for name, made in vars(errors).items()
        if inspect.isclass(made) and issubclass(made, errors.RandesError)
    }
    assert named <= set(randes_cli.__all__)


def test_everything_public_is_typed_and_described() -> None:
    for name in randes_cli.__all__:
        made = getattr(randes_cli, name)
        assert made.__module__.startswith("randes_cli.")
        assert inspect.getdoc(made), name
        if inspect.isfunction(made):
            hints = inspect.signature(made)
            assert hints.return_annotation is not inspect.Signature.empty
            for parameter in hints.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)


def test_paths_may_be_strings_or_paths_in_every_verb(tmp_path: Path) -> None:
    base = random_state(SHAPES)
    packer = Packer(tmp_path)
    bank = packer.pack(base, {"one": perturbed(base, seed=1), "two": perturbed(base, seed=2)})
    one = tmp_path / "one.safetensors"
    for kind in (str, Path):
        found = randes_cli.inspect(kind(bank), "one", against={"one": kind(one)})
        assert found.report.tasks[0].name == "one" and found.rows and found.measured
        checked = randes_cli.verify(kind(bank), against={"one": kind(one)})
        assert checked.sound and checked.against[0].task == "one"
        assert randes_cli.diff(kind(bank), kind(bank)).same
        assert not randes_cli.diff(kind(one), kind(tmp_path / "two.safetensors")).same
        assert randes_cli.diff(kind(bank), {"one": kind(one)}).same
        page, picture = kind(tmp_path / "page.html"), kind(tmp_path / "picture.svg")
        assert randes_cli.report(kind(bank), page, force=True).bytes == Path(page).stat().st_size
        randes_cli.plot(kind(bank), picture, "layers", force=True)
        made = randes_cli.unpack(kind(bank), "one", kind(tmp_path / f"{kind.__name__}.safetensors"))
        assert [report.task for report in made] == ["one"]


def test_tasks_may_be_paths_or_paths_by_name(tmp_path: Path) -> None:
    base = random_state(SHAPES)
    packer = Packer(tmp_path)
    expected = packer.pack(base, {"one": perturbed(base, seed=1), "two": perturbed(base, seed=2)})
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("one", "two")}
    first = tmp_path / "base.safetensors"
    for tasks in (list(paths.values()), [f"{n}={p}" for n, p in paths.items()], paths):
        bank = tmp_path / "made.randes"
        randes_cli.pack(first, tasks, bank, force=True)
        assert bank.read_bytes() == expected.read_bytes()
    randes_cli.remove(bank, ["two"])
    randes_cli.add(bank, {"late": paths["two"]})
    with pytest.raises(randes_cli.UsageError, match="paths by name"):
        randes_cli.pack(first, str(paths["one"]), tmp_path / "no.randes")
    strange: list[Any] = [5, "", "x\0y", "\ud800"]
    for task in strange:
        with pytest.raises(randes_cli.UsageError, match="name a path or a Hub id, not"):
            randes_cli.pack(first, [task], tmp_path / "no.randes")


def test_what_names_no_task_or_no_table_of_checkpoints_is_refused(tmp_path: Path) -> None:
    base = random_state(SHAPES)
    bank = Packer(tmp_path).pack(base, {"one": perturbed(base, seed=1)})
    alone: Any = str(tmp_path / "one.safetensors")
    verbs: list[Callable[[], object]] = [
        lambda: randes_cli.inspect(bank, against=alone),
        lambda: randes_cli.verify(bank, against=alone),
        lambda: randes_cli.report(bank, tmp_path / "page.html", against=alone),
        lambda: randes_cli.plot(bank, tmp_path / "a.svg", "distribution", against=alone),
        lambda: randes_cli.evaluate(bank, lambda *_: 1.0, originals=alone),
    ]
    for verb in verbs:
        with pytest.raises(randes_cli.UsageError, match=r"by task, \{task: path\}, not '"):
            verb()
    with pytest.raises(randes_cli.UsageError, match="say type or layer"):
        randes_cli.inspect(bank, by="tensor")
    with pytest.raises(randes_cli.UsageError, match=r"no bank; give a checkpoint as \{task: path"):
        randes_cli.diff(bank, alone)
    with pytest.raises(randes_cli.UsageError, match="--max-shard-size"):
        randes_cli.UnpackOptions(shard_bytes=0)
    with randes_cli.Bank.open(bank) as file, pytest.raises(randes_cli.UsageError, match="--lambda"):
        file.retrieve("one", coefficient=1e9)
    nothing: Any = None
    missing = pytest.raises(randes_cli.MissingError, match=r"no task None .*; it has one")
    with randes_cli.Bank.open(bank) as file, missing:
        file.retrieve(nothing)


def test_a_report_over_its_own_bank_is_refused(tmp_path: Path) -> None:
    base = random_state(SHAPES)
    bank = Packer(tmp_path).pack(base, {"one": perturbed(base, seed=1)})
    before = bank.read_bytes()
    for write in (randes_cli.report, randes_cli.plot):
        with pytest.raises(randes_cli.UsageError):
            write(bank, bank, force=True)
    with pytest.raises(randes_cli.UsageError, match="--kind"):
        randes_cli.plot(bank, tmp_path / "a.svg", "pie")
    assert bank.read_bytes() == before


def test_a_client_passes_pyright_as_strictly_as_it_can(tmp_path: Path) -> None:
    """mypy has it among the tests, as strictly: `make lint`."""
    (tmp_path / "client.py").write_bytes(CLIENT.read_bytes())
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "include": ["client.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*pyright, "-p", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_python_document_is_what_docstrings_say() -> None:
    module = script("docs/make_python.py")
    assert (ROOT / "docs" / "python.md").read_text("utf-8") == module.page(), "run: make docs"


def test_the_client_runs(tmp_path: Path) -> None:
    write_family(tmp_path)
    done = subprocess.run([sys.executable, CLIENT], cwd=tmp_path, capture_output=True, check=True)
    assert b"cars" in done.stdout
    assert retrieve(tmp_path / "bank.randes", "cars").keys() == {"weight"}


def write_family(folder: Path) -> None:
    """The files that examples name: a base of one tensor and fine-tunes of it."""
    base = random_state({"weight": [16, 8]})
    save_file(base, folder / "base.safetensors")
    for seed, name in enumerate(("cars", "dtd", "sun")):
        save_file(perturbed(base, seed=seed), folder / f"{name}.safetensors")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_every_python_example_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    # What runs whole models has a bank of its own: tests/live/test_live_document.py.
    blocks = [block for block in found if "attach(" not in block]
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "example"})
