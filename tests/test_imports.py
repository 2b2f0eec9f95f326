"""The layers import one way, and the package starts without its heavy parts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path

import randes_cli

SOURCE = Path(randes_cli.__file__).parent
#: Each layer may import itself and those before it.
LAYERS = [
    "errors",
    "interrupts",
    "threads",
    "limits",
    "specs",
    "reports",
    "core",
    "plan",
    "fit",
    "workers",
    "cluster",
    "files",
    "stats",
    "read",
    "build",
    "ops",
    "api",
    "live",
    "server",
    "views",
    "verbs",
    "cli",
]
#: Where `from_bank` of a library is found; what it is lies in `live`.
LIBRARIES = {"diffusers", "sentence_transformers", "timm", "transformers"}
#: Only the command line knows these.
TALKERS = {"typer", "rich", "tqdm"}
#: Tells the address of a server in Python by `print`, where nothing else is given to tell it.
TELLS = SOURCE / "server" / "service.py"
#: What the package promises.
PUBLIC = [
    "Bank",
    "BankDamaged",
    "BankDiff",
    "BankLocked",
    "BankReport",
    "CheckFailed",
    "CheckpointDiff",
    "CheckpointError",
    "ConvertReport",
    "EditOptions",
    "EditReport",
    "EvaluateReport",
    "HubError",
    "InputOutputError",
    "Inspection",
    "LoadReport",
    "MismatchError",
    "MissingError",
    "MixedModel",
    "NewerFormat",
    "NoSpace",
    "OpenOptions",
    "OutOfResources",
    "PackOptions",
    "PackReport",
    "Pool",
    "PushReport",
    "RandesError",
    "Recipe",
    "RunOptions",
    "SealReport",
    "TaskInput",
    "TaskRecord",
    "TaskSummary",
    "TooManyOpen",
    "Transform",
    "TuneOptions",
    "TuneReport",
    "UnpackOptions",
    "UnpackReport",
    "UsageError",
    "VerifyReport",
    "Written",
    "add",
    "attach",
    "convert",
    "diff",
    "evaluate",
    "inspect",
    "pack",
    "plot",
    "push",
    "remove",
    "report",
    "seal",
    "serve",
    "tune",
    "unpack",
    "verify",
]


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """A file's code, part by part."""
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """Absolute module names that a file imports, anywhere in it: under TYPE_CHECKING, too."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def named(path: Path) -> set[str]:
    """Every name and attribute (``sys.stdout``) that a file's code speaks of."""
    names = (ast.Name, ast.Attribute)
    return {ast.unparse(node) for node in nodes(path) if isinstance(node, names)}


def layer_of(module: str) -> str:
    return _layer(module.split(".")[1])


def _layer(part: str) -> str:
    return "live" if part in LIBRARIES else part


def source_files() -> list[tuple[str, Path]]:
    """(layer, file) of every module below the package's own root files."""
    made = []
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part not in ("__init__", "__main__"):
            made.append((_layer(part), path))
    return made


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts)


def package_imports() -> Mapping[str, Set[str]]:
    """What each module of the package, but for its root files, imports of it."""
    files = {module_of(path): path for _, path in source_files()}
    return {name: imported_modules(path) & files.keys() for name, path in files.items()}


def test_every_module_belongs_to_a_known_layer() -> None:
    assert {layer for layer, _ in source_files()} <= set(LAYERS)


def test_imports_run_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, found in package_imports().items()
        for other in found
        if LAYERS.index(layer_of(other)) > LAYERS.index(layer_of(module))
    ]
    assert wrong == []


def test_the_picture_of_the_layers_has_each_in_its_order() -> None:
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
    picture = text.split("```text\n")[1].split("```")[0]
    heads = re.findall(r"(?:^|──▶) *((?:[a-z]+, )*[a-z]+)(?=   |$)", picture, re.MULTILINE)
    assert [layer for names in heads for layer in names.split(", ")] == LAYERS


def circles(imports: Mapping[str, Set[str]]) -> Mapping[str, Set[str]]:
    """What is left when all that imports nothing of the rest is taken out, again and again."""
    while leaves := {name for name, found in imports.items() if not found & imports.keys()}:
        imports = {name: found for name, found in imports.items() if name not in leaves}
    return imports


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circles(package_imports()) == {}


def test_the_rooms_of_a_layer_import_one_another_one_way() -> None:
    rooms: dict[str, set[str]] = {}
    for module, found in package_imports().items():
        if module.count(".") > 2:
            room = module.rpartition(".")[0]
            others = {other.rpartition(".")[0] for other in found if other.count(".") > 2}
            rooms.setdefault(room, set()).update(others - {room})
    assert len(rooms) > 5
    assert circles(rooms) == {}


def test_only_the_command_line_prints_or_knows_how_to() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for layer, path in source_files()
        if layer != "cli"
        for module in imported_modules(path)
        if module.split(".")[0] in TALKERS
    ]
    wrong += [
        f"{path.relative_to(SOURCE)} prints"
        for layer, path in source_files()
        if layer != "cli" and {"print", "sys.stdout", "sys.stderr"} & named(path) and path != TELLS
    ]
    assert wrong == []


def test_only_what_runs_models_knows_the_libraries_that_run_them() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for layer, path in source_files()
        if layer not in ("live", "server")
        for module in imported_modules(path)
        if module.split(".")[0] in {*LIBRARIES, "accelerate", "triton"}
    ]
    assert wrong == []


def test_arithmetic_opens_no_file() -> None:
    core = {m for layer, path in source_files() if layer == "core" for m in imported_modules(path)}
    assert not core & {"os", "pathlib", "io", "shutil", "tempfile"}
    assert not any("open" in named(path) for layer, path in source_files() if layer == "core")


def test_torch_is_known_where_tensors_of_its_own_come_or_go() -> None:
    known = {module_of(path) for _, path in source_files() if "torch" in imported_modules(path)}
    running = ("randes_cli.live.", "randes_cli.server.")
    assert {module for module in known if not module.startswith(running)} == {
        "randes_cli.api",
        "randes_cli.core.torch_kernel",
        "randes_cli.files.checkpoint.pickles",
        "randes_cli.read.load",
    }


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    tests = Path(__file__).parent
    files = (path for root in (SOURCE, tests) for path in root.rglob("*.*"))
    code = [path for path in files if path.suffix in {".py", ".c", ".h"}]
    lines = {path.name: path.read_text("utf-8").count("\n") for path in code}
    assert len(code) > 500
    assert {name: count for name, count in lines.items() if count > 300} == {}


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
    assert randes_cli.__all__ == PUBLIC
    for name in randes_cli.__all__:
        assert getattr(randes_cli, name).__module__.startswith("randes_cli.")
