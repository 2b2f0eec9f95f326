"""Models in a bucket are found, checked and packed as those in a folder here are."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli import OpenOptions, PackOptions, TaskInput, pack
from randes_cli.cli.main import run
from randes_cli.errors import NoSpace
from randes_cli.files.elsewhere import Elsewhere, open_elsewhere
from randes_cli.files.sources import Sources
from randes_cli.files.weight_file import TensorFile
from tests.checkpoints import perturbed, random_state, save
from tests.store_server import Store

SHAPES = {"a.weight": [40, 16], "b.weight": [30, 16]}


def folder_of(path: Path, seed: int, **files: bytes) -> Path:
    """A model's folder: weights and side files."""
    save(perturbed(random_state(SHAPES), seed=seed), path / "model.safetensors")
    for name, data in {"config.json": b"{}", **files}.items():
        (path / name).write_bytes(data)
    return path


def sharded(path: Path, seed: int) -> Path:
    """The same in two shards."""
    state = perturbed(random_state(SHAPES), seed=seed)
    names = {name: f"model-0000{n}-of-00002.safetensors" for n, name in enumerate(state, 1)}
    for name, file in names.items():
        save({name: state[name]}, path / file)
    index = {"metadata": {}, "weight_map": names}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def both(
    far: Store, here: Path, base: str, *tasks: str, options: PackOptions | None = None
) -> None:
    """Pack the same here and in the bucket; the banks are equal."""
    far.put_folder(here)
    for at in (f"{here}/", far.at() + "/"):
        inputs = [TaskInput(Path(task).name.split(".")[0], at + task) for task in tasks]
        pack(at + base, inputs, at + "x.randes", options)
    assert far.get("x.randes") == (here / "x.randes").read_bytes()


def test_folders_come_with_their_side_files_and_what_stays_behind_is_said(
    store: Store, tmp_path: Path
) -> None:
    folder_of(tmp_path / "base", 0, **{"tokenizer.json": b"{}"})
    task = folder_of(tmp_path / "cars", 1, **{"README.md": b"# cars", "logo.png": b"\x89PNG"})
    (task / "notes.txt").write_bytes(b"\0binary")
    (task / "training_args.bin").write_bytes(b"x" * 100)
    (task / "1_Pooling").mkdir()
    (task / "1_Pooling" / "config.json").write_bytes(b'{"a": 1}')
    both(store, tmp_path, "base", "cars")


def test_shards_are_found_by_their_folder_and_by_their_index(store: Store, tmp_path: Path) -> None:
    sharded(tmp_path / "base", 0)
    sharded(tmp_path / "cars", 1)
    both(store, tmp_path, "base", "cars/model.safetensors.index.json")
    gone = tmp_path / "cars" / "model-00002-of-00002.safetensors"
    gone.unlink()
    store.put_folder(tmp_path / "cars", "lost/")
    for name in ("lost", "lost/model.safetensors.index.json"):
        store.forget()
        assert run(["pack", store.at("base"), store.at(name), "-o", "y.randes"]) == 3
        assert store.bytes_sent("model-00001-of-00002.safetensors") <= 2 * 2**16


def test_components_of_a_pipeline_are_found(store: Store, tmp_path: Path) -> None:
    index = {"_class_name": "P", "unet": ["x", "U"], "vae": ["x", "V"]}
    for seed, name in enumerate(("base", "cars")):
        for part in ("unet", "vae"):
            state = perturbed(random_state(SHAPES), seed=seed)
            save(state, tmp_path / name / part / "diffusion_pytorch_model.safetensors")
            (tmp_path / name / part / "config.json").write_text("{}")
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
    both(store, tmp_path, "base", "cars")


def test_an_adapter_is_merged(store: Store, tmp_path: Path) -> None:
    folder_of(tmp_path / "base", 0)
    factors = {
        "base_model.model.a.lora_A.weight": torch.ones(2, 16),
        "base_model.model.a.lora_B.weight": torch.ones(40, 2),
    }
    save(factors, tmp_path / "lora" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["a"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    both(store, tmp_path, "base", "lora")
    config["use_dora"] = True
    store.put("lora/adapter_config.json", json.dumps(config).encode())
    with pytest.raises(Exception, match=f"^{store.at('lora')}"):
        pack(store.at("base"), [TaskInput("l", store.at("lora"))], tmp_path / "y.randes")


def test_pickles_follow_the_rules_of_local_ones(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path / "base", 0)
    state = perturbed(random_state(SHAPES), seed=1)
    torch.save(state, tmp_path / "cars.pt")
    (tmp_path / "dtd").mkdir()
    torch.save(state, tmp_path / "dtd" / "pytorch_model.bin")
    store.put_folder(tmp_path)
    for name in ("cars.pt", "dtd"):
        assert run(["pack", store.at("base"), store.at(name), "-o", "y.randes", "-q"]) == 3
        said = capsys.readouterr().err
        assert said.startswith(f"randes: {store.at(name)}") and "--allow-pickle" in said
    options = PackOptions(opening=OpenOptions(allow_pickle=True))
    both(store, tmp_path, "base", "cars.pt", "dtd", options=options)


def test_what_is_wrong_is_said_of_the_address(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = save(random_state(SHAPES), tmp_path / "base.safetensors").read_bytes()
    cases = {
        "short.safetensors": (whole[:-8], "truncated"),
        "page.safetensors": (b"<!DOCTYPE html><html>", "an HTML page"),
        "empty.safetensors": (b"", "an empty file"),
        "quantised.gguf": (b"GGUF....", "a GGUF file"),
        "none/README.md": (b"x", "no safetensors file in this folder"),
    }
    for name, (data, said) in cases.items():
        store.put(name, data)
        named = store.at(name.removesuffix("/README.md"))
        assert run(["pack", str(tmp_path / "base.safetensors"), named, "-o", "y.randes"]) == 3
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith(f"randes: {named}: ") and said in last


def test_a_model_that_is_replaced_while_it_is_read_makes_no_bank(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(random_state(SHAPES), tmp_path / "base.safetensors")
    save(perturbed(random_state(SHAPES), seed=1), tmp_path / "cars.safetensors")
    store.put_folder(tmp_path)

    def meanwhile(phase: str, done: int, total: int) -> None:
        if phase == "packing":
            store.put("cars.safetensors", (tmp_path / "base.safetensors").read_bytes())

    task = TaskInput("cars", store.at("cars.safetensors"))
    with pytest.raises(Exception, match=r"(changed|was replaced) while it was read"):
        pack("base.safetensors", [task], "x.randes", progress=meanwhile)
    assert not Path("x.randes").exists()


def test_names_that_no_disk_has_are_passed_over_and_a_full_disk_is_no_store_s_fault(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "base", 0)
    store.put_folder(tmp_path)
    store.put("base/" + "n" * 300, b"too long")
    with Sources().open(store.at("base")) as found:
        assert set(found.tensors) == set(SHAPES) and set(found.side_files) == {"config.json"}

    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("randes_cli.files.local.system.write_at", full)
    with pytest.raises(NoSpace, match=r"^/.*/config\.json: no space left while writing"):
        Sources().open(store.at("base"))
    nowhere = Elsewhere(
        "org/name", "", {"config.json": 2}, full, lambda name: TensorFile(Path(name))
    )
    with pytest.raises(NoSpace, match=r"^/.*/config\.json: no space left"), nowhere.outline():
        pass


def test_a_side_file_that_is_another_than_was_listed_has_the_size_that_came(tmp_path: Path) -> None:
    weights = save(random_state(SHAPES), tmp_path / "model.safetensors")
    sizes = {weights.name: weights.stat().st_size, "tokenizer.json": 1, "config.json": 9}

    def get(name: str, target: Path) -> None:
        target.write_bytes(b"{}" if name == "config.json" else b"")

    there = Elsewhere("org/name", "", sizes, get, lambda name: TensorFile(tmp_path / name))
    with open_elsewhere(there, called="org/name") as found:
        assert {name: file.size for name, file in found.side_files.items()} == {
            "tokenizer.json": 0,
            "config.json": 2,
        }


def test_a_folder_at_an_address_is_closed_with_its_passing_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "base", 0)
    store.put_folder(tmp_path)
    passing = tmp_path / "passing"
    passing.mkdir()
    monkeypatch.setenv("TMPDIR", str(passing))
    with Sources().open(store.at("base")) as found:
        assert set(found.tensors) == set(SHAPES) and list(passing.iterdir())
    assert not list(passing.iterdir())
