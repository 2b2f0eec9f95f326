"""A bank on the Hub is used there: names first, then only the bytes that a task needs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from randes_cli import Bank, HubError, MismatchError, PackOptions, TaskInput, convert, pack, unpack
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from randes_cli.files.sources import open_bank
from randes_cli.ops.verify import Recipe
from tests.checkpoints import perturbed, random_state, save
from tests.hub_server import HubServer

ID = "org/bank"
SHAPES = {"a.weight": [200, 128], "b.weight": [300, 128], "norm": [128]}


@pytest.fixture
def bank(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of three groups, here and at ``org/bank``; its folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    base = random_state(SHAPES)
    save(base, Path("base.safetensors"))
    for seed, name in enumerate(("cars", "dtd", "svhn")):
        state = perturbed(base, seed=seed) | ({"head": torch.ones(7, 64)} if seed == 1 else {})
        save(state, Path(f"{name}.safetensors"))
    tasks = [TaskInput(name, f"{name}.safetensors") for name in ("cars", "dtd", "svhn")]
    pack("base.safetensors", tasks, "x.randes", PackOptions(groups=3))
    hub.add(ID, {"x.randes": Path("x.randes").read_bytes(), "README.md": b"x"})
    hub.forget()
    return Path("x.randes")


def sizes(bank: Path) -> dict[str, int]:
    with BankFile(bank) as file:
        return {key: tensor.nbytes for key, tensor in file.header.tensors.items()}


def test_one_task_takes_the_base_its_superposition_and_its_own_tensors(
    hub: HubServer, bank: Path
) -> None:
    found = sizes(bank)
    unpack(ID, "dtd", "far.safetensors")
    wanted = sum(n for key, n in found.items() if key.startswith(("base/", "sum/1/", "own/dtd/")))
    others = sum(n for key, n in found.items() if key.startswith(("sum/0/", "sum/2/")))
    assert wanted < hub.body_bytes < bank.stat().st_size - others + 2**16 + 9000
    unpack(bank, "dtd", "near.safetensors")
    assert Path("far.safetensors").read_bytes() == Path("near.safetensors").read_bytes()
    hub.forget()
    unpack(ID, "dtd", "other.safetensors", base="base.safetensors")
    assert Path("other.safetensors").read_bytes() == Path("near.safetensors").read_bytes()
    base = sum(n for key, n in found.items() if key.startswith("base/"))
    assert hub.body_bytes < wanted - base + 2**16 + 9000


def test_a_wrong_name_is_said_before_anything_is_read(
    hub: HubServer, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["unpack", ID, "cras", "-q"]) == 5
    assert "did you mean cars" in capsys.readouterr().err
    assert hub.body_bytes < 2**16 + 9000 < bank.stat().st_size / 3


def test_another_base_than_the_bank_s_is_refused(hub: HubServer, bank: Path) -> None:
    save(perturbed(random_state(SHAPES), seed=9), Path("other.safetensors"))
    assert run(["unpack", ID, "cars", "--base", "other.safetensors", "-o", "c.safetensors"]) == 4
    assert not Path("c.safetensors").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", ID],
        ["inspect", "hf://org/bank/x.randes", "--task", "cars"],
        ["verify", ID, "--quick"],
        ["verify", ID],
        ["diff", ID, "x.randes"],
        ["diff", "x.randes", ID],
        ["report", ID, "-o", "r.html"],
        ["seal", ID, "--bits", "4", "-o", "s.randes"],
        ["convert", ID, "--single-file", "-o", "c.randes"],
        ["evaluate", ID, "--evaluate", "echo 1 # {checkpoint}"],
    ],
    ids=" ".join,
)
def test_commands_that_read_take_a_bank_of_the_hub(
    hub: HubServer, bank: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    far = capsys.readouterr().out
    if words[0] in ("seal", "convert"):
        made = Path(words[-1])
        far = made.read_bytes().hex()
        made.unlink()
    assert (
        run(
            [word.replace("hf://org/bank/", "").replace(ID, "x.randes") for word in words]
            + (["--force"] if words[0] == "report" else [])
        )
        == 0
    )
    near = capsys.readouterr().out
    if words[0] in ("seal", "convert"):
        near = Path(words[-1]).read_bytes().hex()
    assert far.replace(f"{ID}:x.randes", "x.randes") == near


def test_a_bank_of_the_hub_is_opened_and_retrieved_from(hub: HubServer, bank: Path) -> None:
    with Bank.open(ID) as far, Bank.open(bank) as near:
        assert far.tasks == near.tasks
        for name, tensor in near.retrieve("svhn").items():
            assert torch.equal(far.retrieve("svhn")[name], tensor)


def test_shards_are_read_where_they_are(hub: HubServer, bank: Path) -> None:
    convert(bank, "y.randes", max_shard_size=100_000)
    shards = {f"y.randes.d/{path.name}": path.read_bytes() for path in Path("y.randes.d").iterdir()}
    hub.add("org/shards", {"y.randes": Path("y.randes").read_bytes(), **shards})
    hub.forget()
    unpack("org/shards", "cars", "far.safetensors")
    unpack(bank, "cars", "near.safetensors")
    assert Path("far.safetensors").read_bytes() == Path("near.safetensors").read_bytes()
    assert hub.body_bytes < sum(map(len, shards.values()))
    hub.add("org/lost", {"y.randes": Path("y.randes").read_bytes()})
    assert run(["unpack", "org/lost", "cars", "-o", "c.safetensors"]) == 6


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "3"}), (500, {}), (503, {})])
@pytest.mark.parametrize("part", ["/api/models/", "/tree/", "/resolve/", "/cdn/"])
def test_a_hub_that_is_busy_or_fails_once_is_asked_again(
    hub: HubServer,
    bank: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    status: int,
    headers: dict[str, str],
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.fail(part, status, times=2, headers=headers)
    unpack(ID, "cars", "far.safetensors")
    assert len(waits) >= 1
    assert status != 429 or min(waits) >= 3


def test_a_hub_that_fails_for_good_ends_in_one_sentence_and_no_file(
    hub: HubServer, bank: Path
) -> None:
    hub.fail("/cdn/", 500, times=10_000)
    with pytest.raises(HubError, match=r"org/bank@\w+/x.randes: http://127.* answered 500"):
        unpack(ID, "cars", "far.safetensors")
    assert not Path("far.safetensors").exists()


def test_a_worker_of_a_cluster_opens_the_bank_that_the_driver_verifies(
    hub: HubServer, bank: Path
) -> None:
    with open_bank(ID, lenient=True) as there:
        recipe = pickle.loads(pickle.dumps(Recipe.of(there)))
    with recipe.opened() as opened:
        assert opened.header.tensors.keys() == sizes(bank).keys()
    changed = replace(recipe, digest=bytes(16))
    with pytest.raises(MismatchError, match="another bank on a worker"), changed.opened():
        raise AssertionError
