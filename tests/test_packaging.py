"""The wheel and the sdist: what they hold, and that they work where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

import randes_cli
from tests.checkpoints import Packer, perturbed, random_state

ROOT = Path(__file__).parents[1]
SHAPES = {"layers.0.weight": (96, 64), "layers.1.weight": (96, 64), "norm.weight": (64,)}
BUILD = "from setuptools import build_meta as b; b.build_wheel('out'); b.build_sdist('out')"
COMPILED = "from randes_cli.core.compiled.kernel import available; print(available())"


def have_compiler() -> bool:
    """Whether the compiler that Python was built with is here."""
    named = (sysconfig.get_config_var("CC") or "cc").split()
    return bool(named) and shutil.which(named[0]) is not None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of the sources.

    Their compiled passes are not optimized, which takes a tenth of the time and changes no byte.
    """
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg*")
    )
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert project.count('"-O3"') == 1
    (source / "pyproject.toml").write_text(project.replace('"-O3"', '"-O0"'), "utf-8")
    subprocess.run([sys.executable, "-c", BUILD], cwd=source, check=True, capture_output=True)
    return source / "out"


def install(package: Path, folder: Path) -> Path:
    """Install into a fresh environment in which no compiler is to be found; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = Path(sysconfig.get_path("scripts", vars={"base": str(folder)})) / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    bare = {**os.environ, "PATH": "", "CC": "no-compiler-here", "CXX": "no-compiler-here"}
    subprocess.run(
        [*command, "--no-deps", "--no-index", "--no-build-isolation", str(package)],
        env={**bare, "PYTHONPATH": str(Path(setuptools.__file__).parents[1])},
        check=True,
    )
    borrowed = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (borrowed / "dependencies.pth").write_text("\n".join(p for p in sys.path if "site-pack" in p))
    return python


def output(python: Path, *words: str, cwd: Path) -> str:
    """What a command in that environment prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, *words], capture_output=True, text=True, check=True, env=environment, cwd=cwd
    )
    return done.stdout.strip()


def test_one_wheel_serves_every_python_of_a_platform(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"randes_cli/py.typed", "randes_cli/views/page.css"} <= set(names)
    assert not any(name.endswith(".c") for name in names)
    if have_compiler():
        assert "-cp310-abi3-" in wheel.name
        assert any(name.startswith("randes_cli/core/compiled/_fused.abi3") for name in names)


def test_the_version_stands_in_one_place(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    assert wheel.name.startswith(f"randes_cli-{randes_cli.__version__}-")
    assert sdist.name == f"randes_cli-{randes_cli.__version__}.tar.gz"
    with tarfile.open(sdist) as packed:
        assert any(name.endswith("core/compiled/fused.c") for name in packed.getnames())


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def test_without_a_compiler_it_installs_packs_and_unpacks_with_the_same_bytes(
    kind: str, built: Path, tmp_path: Path
) -> None:
    (package,) = built.glob(kind)
    python = install(package, tmp_path / "environment")
    base = random_state(SHAPES)
    packer = Packer(tmp_path)
    sources = packer.inputs({"base": base, "one": perturbed(base, seed=1)})
    base_path, one = (task.source for task in sources)
    expected = packer.pack(base, {"one": perturbed(base, seed=1)})
    run = ("-m", "randes_cli")
    output(python, *run, "pack", base_path, f"one={one}", "-o", "fresh.randes", cwd=tmp_path)
    assert (tmp_path / "fresh.randes").read_bytes() == Path(expected).read_bytes()
    output(python, *run, "unpack", "fresh.randes", "-t", "one", "-o", "o.st", cwd=tmp_path)
    assert (tmp_path / "o.st").stat().st_size > 0
    where = output(python, "-c", "import randes_cli; print(randes_cli.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(tmp_path / "environment")
    compiled = output(python, "-c", COMPILED, cwd=tmp_path)
    assert compiled == str(kind == "*.whl" and have_compiler())
