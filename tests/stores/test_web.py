"""Models and banks on web servers, and what an address says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import HubError, MissingError, RandesError, TaskInput, pack, remove, unpack
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from tests.checkpoints import perturbed, random_state, save, save_family
from tests.web_server import HALF, Web

SHAPES = {"a.weight": [200, 128], "b.weight": [300, 128]}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture
def models(web: Web, waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """A base and two fine-tunes on the server and in the working folder."""
    monkeypatch.chdir(tmp_path)
    save_family(Path(), SHAPES, ["cars", "dtd"])
    for path in Path().glob("*.safetensors"):
        web.files[f"/{path.name}"] = path.read_bytes()
    return web


def tasks(at: str) -> list[TaskInput]:
    return [TaskInput(name, f"{at}{name}.safetensors") for name in ("cars", "dtd")]


def sums(bank: str) -> dict[str, bytes]:
    """All tensors of a bank but for what names its sources."""
    with BankFile(Path(bank)) as file:
        keys = [key for key in file.header.tensors if key not in ("manifest", "checks")]
        return {key: file.read(key).tobytes() for key in keys}


def test_models_of_a_web_server_are_packed_and_taken_out_again(models: Web) -> None:
    at = f"{models.url}/"
    pack(at + "base.safetensors", tasks(at), "far.randes")
    pack("base.safetensors", tasks(""), "near.randes")
    assert sums("far.randes") == sums("near.randes")
    with BankFile(Path("far.randes")) as bank:
        assert bank.manifest.tasks[0].source == at + "cars.safetensors"
    for name in ("far.randes", "near.randes"):
        remove(name, ["cars"])
    assert sums("far.randes") == sums("near.randes")


def test_a_bank_of_a_web_server_is_read_by_range(models: Web) -> None:
    pack("base.safetensors", tasks(""), "x.randes")
    models.files["/x.randes"] = Path("x.randes").read_bytes()
    assert run(["inspect", f"{models.url}/x.randes", "-q"]) == 0
    assert models.sent["/x.randes"] < 90_000 < len(models.files["/x.randes"]) / 3
    unpack(f"{models.url}/x.randes?token=secret", "dtd", "far.safetensors")
    unpack("x.randes", "dtd", "near.safetensors")
    assert Path("far.safetensors").read_bytes() == Path("near.safetensors").read_bytes()


def test_no_place_that_a_comparison_names_shows_a_token(
    models: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    at = [f"{models.url}/{name}.safetensors?token=secret" for name in ("cars", "dtd", "base")]
    assert run(["diff", *at[:2], "--base", at[2], "--json", "-q"]) == 1
    printed = capsys.readouterr()
    assert f"{models.url}/base.safetensors" in printed.out
    assert "secret" not in printed.out + printed.err


def test_an_index_finds_its_shards(models: Web) -> None:
    index = '{"metadata": {}, "weight_map": {"a.weight": "a.st", "b.weight": "b.st"}}'
    state = perturbed(random_state(SHAPES), seed=0)
    for name in ("a", "b"):
        whole = save({f"{name}.weight": state[f"{name}.weight"]}, Path(f"{name}.st"))
        models.files[f"/m/{name}.st"] = whole.read_bytes()
    models.files["/m/model.safetensors.index.json"] = index.encode()
    named = f"{models.url}/m/model.safetensors.index.json"
    pack("base.safetensors", [TaskInput("cars", named)], "far.randes")
    pack("base.safetensors", tasks("")[:1], "near.randes")
    assert sums("far.randes") == sums("near.randes")


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "7"}, 7),
        (429, {"Retry-After": "\xb2"}, 0.5),
        (500, {}, 0.5),
        (0, {}, 0.5),
        (HALF, {}, 0.5),
    ],
)
def test_a_server_that_stumbles_is_asked_again_when_it_wants_it(
    models: Web, waits: list[float], status: int, headers: dict[str, str], wait: float
) -> None:
    models.faults = [(status, headers)] * 2
    pack("base.safetensors", [TaskInput("cars", f"{models.url}/cars.safetensors")], "x.randes")
    assert wait in waits


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "the store answered 500"),
        (403, "the store refused it"),
        (0, "the connection to the store failed or was dropped"),
        (HALF, "the connection to the store failed or was dropped"),
    ],
)
def test_a_server_that_fails_for_good_ends_in_one_sentence(
    models: Web, status: int, said: str
) -> None:
    place = f"{models.url}/cars.safetensors"
    models.faults = [(status, {})] * 100
    with pytest.raises(HubError) as error:
        pack("base.safetensors", [TaskInput("cars", place)], "x.randes")
    assert str(error.value).startswith(f"{place}: ") and said in str(error.value)
    assert not Path("x.randes").exists()


def test_what_is_not_there_and_what_has_no_ranges_are_said(models: Web) -> None:
    with pytest.raises(MissingError, match=r"none.safetensors: not found"):
        unpack(f"{models.url}/none.safetensors", "a", "x.safetensors")
    models.ranges = False
    with pytest.raises(HubError, match="does not answer requests for a range of bytes"):
        pack(f"{models.url}/base.safetensors", tasks(""), "x.randes")


def test_other_bytes_than_were_asked_for_and_endless_redirects_are_said(models: Web) -> None:
    models.shift = 8
    with pytest.raises(HubError, match="answers other bytes than it is asked for"):
        pack(f"{models.url}/base.safetensors", tasks(""), "x.randes")
    models.shift, models.loops = 0, True
    with pytest.raises(HubError, match="answered with redirects without end"):
        pack(f"{models.url}/base.safetensors", tasks(""), "x.randes")
    assert not Path("x.randes").exists()


def test_a_password_is_used_and_shown_nowhere(
    models: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    models.login = "me:pass/word"
    at = models.url.replace("://", "://me:pass%2Fword@")
    assert run(["pack", f"{at}/base.safetensors", "cars.safetensors", "-o", "x.randes"]) == 0
    assert run(["inspect", "x.randes", "--manifest"]) == 0
    wrong = models.url.replace("://", "://me:wrong@")
    assert run(["pack", f"{wrong}/base.safetensors", "cars.safetensors", "-o", "y.randes"]) == 9
    said = "".join(capsys.readouterr()) + Path("x.randes").read_bytes().decode("latin-1")
    assert "pass" not in said.replace("passes", "") and "me:" not in said and "wrong" not in said
    assert f"{models.url}/base.safetensors" in said


def test_a_file_that_is_replaced_while_it_is_read_makes_no_bank(models: Web) -> None:
    def meanwhile(phase: str, done: int, total: int) -> None:
        if phase == "packing":
            models.files["/cars.safetensors"] = models.files["/dtd.safetensors"]

    with pytest.raises(RandesError, match="changed while it was read"):
        pack("base.safetensors", tasks(f"{models.url}/"), "x.randes", progress=meanwhile)
    assert not Path("x.randes").exists()


def test_nothing_is_written_to_a_web_server(models: Web) -> None:
    assert run(["pack", "base.safetensors", "cars.safetensors", "-o", f"{models.url}/x"]) == 2
    assert run(["unpack", "base.safetensors", "a", "-o", f"{models.url}/x"]) == 2
