"""What the command line makes of the words that people type for checkpoints, banks and tasks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.hub.ref import HubRef, parse_ref
from randes_cli.files.location import as_place
from tests.cli.conftest import Result

Run = Callable[..., Result]


@pytest.mark.parametrize("place", ["base", "task", "added", "original"])
def test_a_bank_is_no_checkpoint(place: str, bank: Path, family: Path, randes: Run) -> None:
    words = {
        "base": ["pack", bank, family / "a.safetensors", "-o", family / "x.randes"],
        "task": ["pack", family / "base.safetensors", f"t={bank}", "-o", family / "x.randes"],
        "added": ["add", bank, f"t={bank}"],
        "original": ["verify", bank, "--against", f"a={bank}"],
    }[place]
    result = randes(*words)
    assert (result.code, "a bank, not a checkpoint" in result.err) == (3, True)


def test_a_path_that_is_there_is_taken_whole(
    family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    for name in ("epoch=3-step=100.safetensors", "run=1/ft.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy("a.safetensors", name)
    said = randes("pack", "base.safetensors", "epoch=3-step=100.safetensors", "-o", "x.randes")
    assert said.code == 2 and "say NAME=PATH" in said.err
    assert randes("pack", "base.safetensors", "run=1/ft.safetensors", "-o", "y.randes").code == 0
    shutil.copy("a.safetensors", "3-step=100.safetensors")
    said = randes("pack", "base.safetensors", "epoch=3-step=100.safetensors", "-o", "x.randes")
    assert said.code == 2 and "both epoch=3-step=100.safetensors and 3-step=100" in said.err


def test_the_home_folder_is_known_where_the_shell_left_it(
    family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells leave ~ as it is behind NAME= and --option=."""
    monkeypatch.setenv("HOME", str(family))
    monkeypatch.setenv("USERPROFILE", str(family))
    task, bank = "t=~/a.safetensors", "~/home.randes"
    assert randes("pack", "~/base.safetensors", task, f"--output={bank}").code == 0
    assert (family / "home.randes").is_file()
    assert randes("verify", bank, "--against", task).code == 0
    assert randes("diff", bank, "~/a.safetensors").code in (0, 1)
    assert randes("unpack", bank, "t", "-o", "~/out.safetensors").code == 0
    assert randes("remove", bank, "t", "--checkpoint", "~/a.safetensors").code == 0


@pytest.mark.parametrize("word", ["t=", "=a.safetensors"])
def test_half_a_pair_is_refused(word: str, bank: Path, family: Path, randes: Run) -> None:
    result = randes("pack", family / "base.safetensors", word, "-o", family / "x.randes")
    assert (result.code, "say NAME=PATH" in result.err) == (2, True)
    result = randes("verify", bank, "--against", word)
    assert (result.code, "say NAME=CHECKPOINT" in result.err) == (2, True)


def test_names_and_paths_that_are_not_there_come_with_the_nearest(
    bank: Path, family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    assert "no task 'aa' (did you mean a?)" in randes("unpack", bank, "-t", "aa").err
    assert "no task 'A' (did you mean a?)" in randes("unpack", bank, "A").err
    result = randes("pack", "base.safetensor", "a.safetensors", "-o", "x.randes")
    assert (result.code, "did you mean base.safetensors?" in result.err) == (5, True)
    Path("runs/checkpoint-500").mkdir(parents=True)
    result = randes("pack", "base.safetensors", "runs/checkpoint-50", "-o", "x.randes")
    assert result.code == 5
    assert "did you mean runs/checkpoint-500?" in result.err and "hf://runs" in result.err


def test_an_unknown_task_of_many_is_told_how_many_there_are(family: Path, randes: Run) -> None:
    tasks = [f"task_{number}={family / 'a.safetensors'}" for number in range(15)]
    randes("pack", family / "base.safetensors", *tasks, "-o", family / "many.randes", "-q")
    said = randes("unpack", family / "many.randes", "-t", "task_5x").err
    assert "did you mean task_5" in said and "and 5 more" in said


@pytest.mark.parametrize(
    ("address", "ref"),
    [
        ("https://huggingface.co/org/name", HubRef("org/name")),
        ("https://huggingface.co/org/name/", HubRef("org/name")),
        ("http://www.hf.co/org/name?library=x#files", HubRef("org/name")),
        ("https://huggingface.co/org/name/tree/v1", HubRef("org/name", "v1")),
        (
            "https://huggingface.co/org/name/blob/main/sub/m.safetensors",
            HubRef("org/name", "main", "sub/m.safetensors"),
        ),
    ],
)
def test_a_pasted_address_of_the_hub_is_the_model(address: str, ref: HubRef) -> None:
    assert parse_ref(address) == ref


def test_pages_of_other_things_are_refused() -> None:
    with pytest.raises(UsageError, match="models of the Hub, not datasets"):
        parse_ref("https://hf.co/datasets/a/b")


@pytest.mark.parametrize("address", ["s3://bucket/base", "https://example.com/org/name"])
def test_other_addresses_are_of_stores(address: str) -> None:
    assert parse_ref(address) is None
    assert str(as_place(address)) == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://b/x", r"gs:// needs gcsfs: pip install 'randes-cli\[gcs\]'"),
        ("az://b/x", r"az:// needs adlfs: pip install 'randes-cli\[azure\]'"),
        ("s4://b/x", "s4:// is no store that fsspec knows"),
        ("zip://a::s3://b/x", "an address in an address"),
        ("s3://KEY:se/cret@b/x", r"^s3://b/x: holds a login"),
    ],
)
def test_addresses_that_cannot_be_read_say_why(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    from randes_cli.files.sources import Sources

    for package in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=said):
        Sources().open(address)


def test_a_name_in_a_folder_that_is_here_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    with pytest.raises(MissingError, match=r"org/name: not found; .* hf://org/name"):
        parse_ref("org/name")
    assert parse_ref("other/name") == HubRef("other/name")


def test_tasks_may_follow_the_bank_and_dtypes_have_their_usual_names(
    bank: Path, family: Path, randes: Run
) -> None:
    out = family / "out.safetensors"
    assert randes("unpack", bank, "a", "-o", out, "--dtype", "bfloat16").code == 0
    assert load_file(out)["h.0.w.weight"].dtype == torch.bfloat16
    assert randes("unpack", bank, "a", "--all", "-o", family / "x").code == 2


def test_a_placeholder_where_the_base_has_values_is_refused(family: Path, randes: Run) -> None:
    task = load_file(family / "a.safetensors")
    task["h.1.w.weight"] = torch.zeros(0)
    save_file(task, family / "zero.safetensors")
    result = randes(
        "pack", family / "base.safetensors", family / "zero.safetensors", "-o", family / "x.randes"
    )
    assert result.code == 4
    assert "'h.1.w.weight' has shape [0], the base's [64, 48]: a placeholder of Ze" in result.err


def test_sizes_that_differ_are_shown(family: Path, randes: Run) -> None:
    save_file({"w": torch.zeros(64, 64)}, family / "small.safetensors")
    save_file({"w": torch.zeros(128, 64)}, family / "large.safetensors")
    result = randes(
        "pack",
        family / "small.safetensors",
        family / "large.safetensors",
        "-o",
        family / "x.randes",
    )
    assert (result.code, "'w' is [128, 64], the base's [64, 64]" in result.err) == (4, True)


@pytest.fixture
def pickled(family: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The family's files as pickles, the fine-tune's weights below a key."""
    monkeypatch.chdir(family)
    torch.save(load_file("base.safetensors"), "base.bin")
    torch.save({"epoch": 1, "model_ema": load_file("a.safetensors")}, "a.pth")
    torch.save(load_file("c.safetensors"), "c.bin")
    return family


@pytest.mark.parametrize("where", ["embed", "reference"])
def test_a_bank_remembers_which_sources_were_pickles(
    where: str, pickled: Path, randes: Run
) -> None:
    words = ["--allow-pickle", "--weights-key", "model_ema", "--base", where]
    assert randes("pack", "base.bin", "a=a.pth", "-o", "x.randes", *words).code == 0
    script = Path("score.py")
    script.write_text("print(0.5)")
    score = f"{sys.executable} score.py {{checkpoint}} {{task}}"
    for command in (
        ["verify", "x.randes", "--against", "a=a.pth"],
        ["inspect", "x.randes", "--against", "a=a.pth"],
        ["diff", "x.randes", "a=a.pth"],
        ["report", "x.randes", "-o", "r.html", "--against", "a=a.pth"],
        ["unpack", "x.randes", "a", "-o", "o.safetensors"],
        ["tune", "x.randes", "--evaluate", score, "--grid", "1"],
        ["evaluate", "x.randes", "--evaluate", score],
        ["add", "x.randes", "c=c.bin", "--allow-pickle"],
        ["remove", "x.randes", "-t", "a"],
    ):
        result = randes(*command)
        assert result.code == 0, result.err
    with Bank.open("x.randes") as bank:
        assert set(bank.retrieve("c")) == set(load_file("c.safetensors"))


def test_every_command_that_reads_a_checkpoint_takes_the_leave_that_it_asks_for(
    pickled: Path, randes: Run
) -> None:
    assert randes("pack", "base.safetensors", "c.safetensors", "-o", "x.randes").code == 0
    for command in (
        ["verify", "x.randes", "--against", "c=c.bin"],
        ["inspect", "x.randes", "--against", "c=c.bin"],
        ["diff", "x.randes", "c=c.bin"],
        ["diff", "c.bin", "c.safetensors"],
        ["report", "x.randes", "-o", "r.html", "--against", "c=c.bin"],
    ):
        refused = randes(*command)
        assert (refused.code, "say --allow-pickle" in refused.err) == (3, True)
        allowed = randes(*command, "--allow-pickle")
        assert allowed.code == 0, allowed.err


def test_a_base_outside_that_became_a_pickle_is_read_with_leave(pickled: Path, randes: Run) -> None:
    words = ["-o", "x.randes", "--base", "reference"]
    assert randes("pack", "base.safetensors", "c.safetensors", *words).code == 0
    unpack = ["unpack", "x.randes", "c", "-o", "o.safetensors", "--base", "base.bin"]
    assert randes(*unpack).code == 3
    assert randes(*unpack, "--allow-pickle").code == 0
