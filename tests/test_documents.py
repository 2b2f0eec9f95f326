"""The documents say what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import script

ROOT = Path(__file__).parents[1]


def test_the_command_line_document_is_what_help_prints() -> None:
    module = script("docs/make_cli.py")
    page = module.page()
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == page, "run: make docs"


def anchors(page: Path) -> set[str]:
    """Where a link into a page may lead: its headings, as GitHub names them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_documents_lead_somewhere() -> None:
    folders = (ROOT, ROOT / "docs", *ROOT.glob("examples/*"))
    for page in (page for folder in folders for page in folder.glob("*.md")):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?", page.read_text("utf-8")):
            if "://" not in target:
                there = page.parent / target if target else page
                assert there.exists(), f"{page.name}: {target}"
                assert not anchor or anchor in anchors(there), f"{page.name}: {target}#{anchor}"


def test_the_parts_of_torture_that_promises_name_are_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    held = re.findall(r"torture ((?:`\w+`(?:, )?)+) \|$", page, re.M)
    named = {name for names in held for name in re.findall(r"`(\w+)`", names)}
    assert named and named <= set(re.findall(r"^\| `(\w+)` \|", page, re.M))


def test_the_page_of_results_has_the_words_of_its_maker() -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for name in ("found", "introduction"):
        assert (ROOT / "benchmarks" / "quality" / f"{name}.md").read_text("utf-8") in page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(0)
    base = {f"h.{i}.weight": torch.randn(16, 8, generator=random) for i in range(2)}
    save_file(base, tmp_path / "base.safetensors")
    for name in ("cars", "sun"):
        task = {key: value + 0.1 for key, value in base.items()}
        save_file(task, tmp_path / f"{name}.safetensors")
    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (code,) = [code for code in found if "pack(" in code]
    assert len(code.strip().splitlines()) <= 8
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "bank.randes").exists()


def modules_after(statement: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(found.stdout.split())


def test_help_imports_neither_torch_nor_numpy_nor_the_hub_client() -> None:
    help_ = "from randes_cli.cli.main import run; run(['pack', '--help'])"
    assert not {"torch", "numpy", "huggingface_hub"} & modules_after(help_)
    assert not {"torch", "numpy"} & modules_after("import randes_cli; dir(randes_cli)")


def test_the_cpu_path_does_not_import_torch(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    base = {"w": np.ones((8, 8), np.float32)}
    save_file(base, tmp_path / "base.st")
    save_file({"w": base["w"] + 1}, tmp_path / "a.st")
    bank = tmp_path / "b.randes"
    words = [str(tmp_path / "base.st"), str(tmp_path / "a.st"), "-o", str(bank)]
    code = (
        f"from randes_cli.cli.main import run; run(['pack', *{words!r}]); "
        f"run(['unpack', {str(bank)!r}, '--all', '-o', {str(tmp_path / 'out')!r}])"
    )
    assert "torch" not in modules_after(code)
    assert (tmp_path / "out" / "a.safetensors").exists()
