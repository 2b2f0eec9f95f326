"""The layers import one way, and the package starts without its heavy parts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import randes_cli

SOURCE = Path(randes_cli.__file__).parent
#: Each layer may import itself and those before it.
LAYERS = [
    "errors",
    "specs",
    "reports",
    "core",
    "plan",
    "workers",
    "files",
    "verbs",
    "api",
    "live",
    "views",
    "cli",
]
#: The folders of verbs, which still import one another.
VERBS = {"stats", "read", "build", "ops"}
#: Where `from_bank` of a library is found; what it is lies in `live`.
LIBRARIES = {"diffusers", "sentence_transformers", "timm", "transformers"}
#: Only the command line knows these.
TALKERS = {"typer", "rich", "tqdm"}


def imported_modules(path: Path) -> set[str]:
    """Absolute module names that a file imports, anywhere in it but under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
    return found


def layer_of(module: str) -> str:
    return _layer(module.split(".")[1] if "." in module else "__init__")


def _layer(part: str) -> str:
    return "verbs" if part in VERBS else "live" if part in LIBRARIES else part


def source_files() -> list[tuple[str, Path]]:
    """(layer, file) of every module below the package's own root files."""
    made = []
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part not in ("__init__", "__main__"):
            made.append((_layer(part), path))
    return made


def test_every_module_belongs_to_a_known_layer() -> None:
    assert {layer for layer, _ in source_files()} <= set(LAYERS)


def test_imports_run_one_way() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for layer, path in source_files()
        for module in imported_modules(path)
        if module.startswith("randes_cli.") and LAYERS.index(layer_of(module)) > LAYERS.index(layer)
    ]
    assert wrong == []


def test_only_the_command_line_prints_or_knows_how_to() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for layer, path in source_files()
        if layer != "cli"
        for module in imported_modules(path)
        if module.split(".")[0] in TALKERS
    ]
    assert wrong == []


def test_only_the_live_layer_knows_the_libraries_that_run_models() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for layer, path in source_files()
        if layer != "live"
        for module in imported_modules(path)
        if module.split(".")[0] in {*LIBRARIES, "accelerate", "triton"}
    ]
    assert wrong == []


def test_arithmetic_opens_no_file_and_files_do_no_torch() -> None:
    core = {m for layer, path in source_files() if layer == "core" for m in imported_modules(path)}
    assert not core & {"os", "pathlib", "io", "shutil", "tempfile"}


def test_importing_the_package_loads_no_heavy_module() -> None:
    heavy = ["torch", "numpy", "huggingface_hub", "transformers", "typer", "rich"]
    code = f"import sys, randes_cli; print([m for m in {heavy} if m in sys.modules])"
    paths = {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=paths
    )
    assert done.stdout.strip() == "[]"


def test_packing_on_the_cpu_does_not_load_torch() -> None:
    code = (
        "import sys, randes_cli.build.pack, randes_cli.read.unpack; print('torch' in sys.modules)"
    )
    paths = {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=paths
    )
    assert done.stdout.strip() == "False"


def test_the_public_names_are_these() -> None:
    assert randes_cli.__all__ == [
        "Bank",
        "MixedModel",
        "PackOptions",
        "RandesError",
        "RunOptions",
        "TaskInput",
        "Transform",
        "TuneOptions",
        "attach",
        "evaluate",
        "pack",
        "seal",
        "tune",
    ]
    for name in randes_cli.__all__:
        assert getattr(randes_cli, name).__module__.startswith("randes_cli.")
