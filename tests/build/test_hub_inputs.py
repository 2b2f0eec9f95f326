"""Banks made of models on the Hub: refused early, fetched once, recorded by commit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.errors import HubError, MismatchError, MissingError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import open_base
from randes_cli.files.hub.ref import recorded_ref
from randes_cli.files.sources import local_bank, open_bank
from randes_cli.ops.push import push
from randes_cli.specs import BaseStorage, PackOptions, TaskInput

if TYPE_CHECKING:
    from tests.hub_server import HubServer

CONFIG = b'{"model_type": "bert"}'


def model(seed: int, names: str = "ab") -> bytes:
    """Two float32 matrices of half a megabyte each."""
    source = np.random.default_rng(seed)
    return save({n: source.standard_normal((1000, 128)).astype(np.float32) for n in names})


@pytest.fixture
def models(hub: HubServer) -> HubServer:
    """A base and three fine-tunes of it, with configurations."""
    for number, name in enumerate(["base", "cars", "dtd", "svhn"]):
        hub.add(f"maker/{name}", {"model.safetensors": model(number), "config.json": CONFIG})
    return hub


def tasks(*names: str) -> list[TaskInput]:
    """Tasks by the last part of the repository's name."""
    return [TaskInput(name, f"maker/{name}") for name in names]


def save_models(server: HubServer, folder: Path) -> None:
    """The same models as folders."""
    for name, repo in server.repos.items():
        for file, data in repo.commits[repo.branches["main"]].items():
            path = folder / name.partition("/")[2] / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def sums(bank: Path) -> dict[str, bytes]:
    """All tensors of a bank but for what names its sources."""
    with BankFile(bank) as file:
        return {
            name: file.read(name).tobytes()
            for name in file.header.tensors
            if name not in ("manifest", "checks")
        }


def test_a_bank_of_hub_models_holds_what_one_of_their_folders_holds(
    models: HubServer, tmp_path: Path
) -> None:
    report = pack("maker/base", tasks("cars", "dtd"), tmp_path / "hub.randes")
    save_models(models, tmp_path)
    pack(
        str(tmp_path / "base"),
        [TaskInput(name, str(tmp_path / name)) for name in ("cars", "dtd")],
        tmp_path / "local.randes",
    )
    assert sums(tmp_path / "hub.randes") == sums(tmp_path / "local.randes")
    one = len(model(0)) + len(CONFIG)
    assert report.download_bytes == 3 * one - 3 * len(CONFIG)  # configurations came with a look


def test_the_manifest_records_the_commits(models: HubServer, tmp_path: Path) -> None:
    pack("maker/base@main", tasks("cars"), tmp_path / "x.randes")
    models.add("maker/cars", {"model.safetensors": model(9)})
    with BankFile(tmp_path / "x.randes") as bank:
        base, task = bank.manifest.base.source, bank.manifest.tasks[0].source
    for source, name in ((base, "base"), (task, "cars")):
        found = recorded_ref(source)
        assert found is not None
        assert (found.repo, found.revision) == (
            f"maker/{name}",
            next(iter(models.repos[f"maker/{name}"].commits)),
        )


def test_a_model_that_does_not_fit_is_refused_before_any_moves(
    models: HubServer, tmp_path: Path
) -> None:
    models.add("maker/other", {"model.safetensors": model(5, "xy")})
    with pytest.raises(MismatchError, match=r"maker/other@\w{40}: matches only 0"):
        pack("maker/base", tasks("cars", "other"), tmp_path / "x.randes")
    assert not (tmp_path / "x.randes").exists()
    assert models.body_bytes < 3 * 2**16 + 10_000 < len(model(0)) / 3


def test_each_model_is_resolved_once(models: HubServer, tmp_path: Path) -> None:
    pack("maker/base", tasks("cars"), tmp_path / "x.randes")
    asked = [r.path for r in models.requests if r.path.count("/") == 4 and "/api/" in r.path]
    assert sorted(asked) == ["/api/models/maker/base", "/api/models/maker/cars"]


def test_a_dry_run_reads_headers_alone_and_says_how_much_would_come(
    models: HubServer, tmp_path: Path
) -> None:
    dry = pack("maker/base", tasks("cars", "dtd"), tmp_path / "x.randes", dry_run=True)
    assert dry.download_bytes == 3 * len(model(0))
    assert models.body_bytes < 3 * 2**16 + 10_000
    wet = pack("maker/base", tasks("cars", "dtd"), tmp_path / "x.randes")
    assert wet.download_bytes == dry.download_bytes
    alike = [task.predicted_cosine for task in dry.tasks]
    assert alike == pytest.approx([0.5**0.5] * 2)
    assert "not read in a dry run" in dry.notes[0]
    again = pack("maker/base", tasks("cars", "dtd"), tmp_path / "y.randes", dry_run=True)
    assert (again.download_bytes, again.notes) == (0, ())
    assert again.bank_bytes == dry.bank_bytes


def test_a_dry_run_lists_the_models_that_cannot_be_had(models: HubServer, tmp_path: Path) -> None:
    report = pack("maker/base", tasks("cars", "none"), tmp_path / "x.randes", dry_run=True)
    assert [(refusal.name, refusal.exit_code) for refusal in report.refused] == [("none", 9)]


def test_add_and_remove_take_the_recorded_commit(models: HubServer, tmp_path: Path) -> None:
    bank = tmp_path / "x.randes"
    pack("maker/base", tasks("cars", "dtd"), bank)
    before = sums(bank)
    add(bank, tasks("svhn"))
    models.add("maker/svhn", {"model.safetensors": model(9)})
    remove(bank, ["svhn"])
    assert {k: v for k, v in sums(bank).items() if k.startswith("sum/")} == {
        k: v for k, v in before.items() if k.startswith("sum/")
    }


def test_an_added_model_of_another_base_is_refused_from_its_header(
    models: HubServer, tmp_path: Path
) -> None:
    bank = tmp_path / "x.randes"
    pack("maker/base", tasks("cars"), bank)
    models.add("maker/other", {"model.safetensors": model(5, "xy")})
    models.forget()
    with pytest.raises(MismatchError):
        add(bank, tasks("other"))
    assert models.body_bytes < 2**16 + 5000


def test_a_base_by_reference_is_found_on_the_hub(models: HubServer, tmp_path: Path) -> None:
    bank = tmp_path / "x.randes"
    pack("maker/base", tasks("cars"), bank, PackOptions(base_storage=BaseStorage.reference))
    with BankFile(bank) as file:
        base = open_base(file, None)
        assert base is not None
        out = np.empty(1000 * 128 * 4, np.uint8)
        base.read("b", 0, out)
        base.close()
    assert out.tobytes() == model(0)[-len(out) :]


def test_an_adapter_on_the_hub_is_merged(models: HubServer, tmp_path: Path) -> None:
    factors = {
        "base_model.model.a.lora_A.weight": np.ones((2, 128), np.float32),
        "base_model.model.a.lora_B.weight": np.ones((1000, 2), np.float32),
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["a"]}
    files = {
        "adapter_model.safetensors": save(factors),
        "adapter_config.json": json.dumps(config).encode(),
    }
    weights = np.zeros((1000, 128), np.float32)
    models.add("maker/zero", {"model.safetensors": save({"a.weight": weights})})
    models.add("maker/lora", files)
    options = PackOptions(merge_adapters=True)
    report = pack("maker/zero", tasks("lora"), tmp_path / "x.randes", options)
    assert report.tasks[0].superposed == 1


def test_offline_a_bank_is_made_of_the_cache(
    models: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    pack("maker/base", tasks("cars"), tmp_path / "x.randes")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pack("maker/base", tasks("cars"), tmp_path / "y.randes")
    assert (tmp_path / "x.randes").read_bytes() == (tmp_path / "y.randes").read_bytes()
    with pytest.raises(HubError, match="nor in the cache"):
        pack("maker/base", tasks("dtd"), tmp_path / "z.randes")


def test_a_pushed_bank_is_looked_at_there_and_unpacked_here(
    models: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bank = tmp_path / "x.randes"
    pack("maker/base", tasks("cars", "dtd"), bank)
    push(bank, "maker/bank")
    assert "base_model: maker/base" in models.files("maker/bank")["README.md"].decode()
    for text in ("maker/bank", "hf://maker/bank/x.randes", str(bank)):
        with open_bank(text) as found:
            assert [task.name for task in found.manifest.tasks] == ["cars", "dtd"]
        assert Path(local_bank(text)).read_bytes() == bank.read_bytes()


def test_a_bank_that_is_nowhere_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError), open_bank(str(tmp_path / "none.randes")):
        pass


def test_models_of_both_kinds_go_into_one_bank(models: HubServer, tmp_path: Path) -> None:
    save_models(models, tmp_path)
    mixed = [TaskInput("cars", str(tmp_path / "cars")), *tasks("dtd")]
    mixed = [replace(task, index=number) for number, task in enumerate(mixed)]
    report = pack(str(tmp_path / "base"), mixed, tmp_path / "x.randes")
    assert [task.name for task in report.tasks] == ["cars", "dtd"]
    assert report.download_bytes == len(model(0))
