"""What people type in their first hour, and what they are told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

Run = Callable[..., Result]


#: Commands that write a file where they are told.
WRITING = (
    "pack base.safetensors a.safetensors",
    "unpack bank.randes a",
    "unpack bank.randes --all",
    "seal bank.randes --bits 2",
    "convert bank.randes --single-file",
    "report bank.randes",
    "plot bank.randes",
)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("pakc", 2, "No such command 'pakc'. Did you mean 'pack'"),
        ("help", 2, "No such command 'help' (randes --help lists them)"),
        ("extract bank.randes", 2, "No such command 'extract': randes unpack does that"),
        ("ls bank.randes", 2, "No such command 'ls': randes inspect does that"),
        ("verify bank.randes a", 2, "a: more than verify takes; say it as: randes verify b"),
        ("inspect bank.randes a b", 2, "b: more than inspect takes; say it as: randes inspect b"),
        ("add a.safetensors bank.randes", 3, "a checkpoint, not a bank (the bank comes first;"),
        ("pack", 2, "Missing option '--output' / '-o': the bank to write"),
        ("inspect", 2, "Missing argument 'BANK': the bank: a file, an address or a Hub id"),
        ("pack -o x", 2, "name the base and the models fine-tuned from it, or --from RECIPE"),
        (
            "pack base.safetensors a.safetensors -o x --transform hankle",
            2,
            "ta, not 'hankle' (did you mean hankel?)",
        ),
        ("inspect bank.randes --sort=sizes", 2, "name, not 'sizes' (did you mean size?)"),
        ("plot bank.randes -o x.svg --kind lamda", 2, "(did you mean lambda?)"),
        ("unpack bank.randes a --lambda abc", 2, "--lambda must be a number, not 'abc'"),
        ("seal bank.randes -o x --bits two", 2, "--bits must be a whole number, not 'two'"),
        ("pack base.safetensors a.safetensors -o x --threads -1", 2, "--threads"),
        ("pack base.safetensors a.safetensors -o x/", 2, "x/: names a folder; name a file in it"),
        ("seal bank.randes --bits 2 -o x/", 2, "x/: names a folder; name a file in it"),
        *((f"{line} -o -", 2, "not to standard output; name one (./- for") for line in WRITING),
        (
            "pack base.safetensors t=config.json -o x",
            3,
            "config.json: JSON text, not weights; name",
        ),
        ("pack card.md a.safetensors -o x", 3, "card.md: a text, not weights; name the folder"),
        ("push bank.randes org", 2, "org: say org/name; a branch goes to --revision"),
        (
            "pack base.safetensors a.safetensors -o x --weights-key ema",
            2,
            "--weights-key is for pickles: say --allow-pickle, too",
        ),
        ("inspect config.json", 3, "config.json: JSON text, not weights; name the folder"),
        ("inspect bnk.randes", 5, "bnk.randes: not found (did you mean bank.randes?)"),
        (f"pack a b -o x --max-shard-size {'9' * 400}", 2, "9': write it as 5GB, 500MiB or a num"),
        ("add bnk.randes a.safetensors", 5, "bnk.randes: not found (did you mean bank.randes?)"),
        ("seal bnk.randes --bits 4 --in-place", 5, "bnk.randes: not found (did you mean bank.ra"),
        ("inspect bank.randes aa", 5, "no task 'aa' (did you mean a?)"),
        ("inspect bank.randes a --task b", 2, "a is named already; inspect shows one task"),
        ("remove bank.randes", 2, "(or NAME alone, several too); bank.randes has a, b"),
        ("unpack bank.randes", 2, "several too), or --all; bank.randes has a, b"),
        ("unpack bank.randes a --all", 2, "--all writes every task: name none beside it"),
        ("unpack bank.randes a", 2, "exists, and is what a was packed from: name another place"),
        ("unpack bank.randes a -o a.bin", 2, "name a file a.safetensors, or a folder"),
        ("add bank.randes c.safetensors@3", 2, "c@3: bank.randes has one group, 0"),
        ("add bank.randes a.safetensors", 2, "--replace puts the new one in its place"),
        ("unpack bank.randes a --force", 2, "exists, and is what a was packed from"),
        ("add bank.randes aa=c.safetensors --replace", 5, "'aa' to replace (did you mean a?)"),
        ("verify .", 3, ".: a folder; the bank in it is bank.randes"),
        ("verify bank.randes --against a=a b=b c=c", 2, "b=b c=c: say --against before each"),
        ("verify bank.randes --threads -1", 2, "--threads must be at least 0, not -1"),
        ("serve bank.randes --port 70000", 2, "--port must be at most 65535, not 70000"),
        ("evaluate bank.randes -t a b --evaluate x", 2, "b: say -t before each"),
        ("pack --base base.safetensors a -o x", 2, "the base model comes first, without an option"),
        (
            "pack base.safetensors a.safetensors -o x --adapters",
            2,
            "a.safetensors: no LoRA adapter; --adapters is for adapters alone",
        ),
        ("remove . a", 3, ".: a folder; the bank in it is bank.randes"),
        ("seal bank.randes -o x --bits 2 --fit 1.1", 2, "--fit 1.1 would choose: say one of them"),
        (
            "pack base.safetensors a.safetensors -o x --device gpu",
            2,
            "must be one of auto, cpu, cpu-torch",
        ),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(
    line: str,
    code: int,
    said: str,
    bank: Path,
    family: Path,
    randes: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(family)
    Path("config.json").write_text('{"model_type": "llama", "hidden_size": 64}\n')
    Path("card.md").write_text(f"{'é' * 40}\n", encoding="utf-8")
    result = randes(*line.split())
    assert not Path("-").exists()
    assert (result.code, len(result.err.strip().splitlines())) == (code, 1), result.err
    assert said in result.err
    assert result.out == ""


def test_a_folder_in_place_of_a_bank_is_told_by_what_is_in_it(
    family: Path, bank: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    for name in ("model", "empty", "many"):
        Path(name).mkdir()
    shutil.copy("a.safetensors", "model/model.safetensors")
    for name in ("x", "y"):
        shutil.copy(bank, f"many/{name}.randes")
    assert randes("convert", bank, "-o", "cut.randes", "--max-shard-size", "20kB", "-q").code == 0
    told = {
        "model": "the folder of a checkpoint, not a bank (the bank comes first; randes pack makes "
        "one)",
        "empty": "a folder, and no bank is in it",
        "many": "a folder of 2 banks; name one of them: many/x.randes, many/y.randes",
        "cut.randes.d": "the folder of a bank's shards; the bank is cut.randes",
    }
    for name, said in told.items():
        for verb in (["inspect"], ["add", "c.safetensors"], ["push", "org/name"]):
            done = randes(verb[0], name, *verb[1:])
            assert (done.code, done.err) == (3, f"randes: {name}: {said}\n"), verb


@pytest.mark.parametrize("verb", ["inspect", "verify", "unpack --all", "seal -o x --bits 2"])
def test_a_truncated_bank_is_named_once(verb: str, bank: Path, randes: Run) -> None:
    bank.write_bytes(bank.read_bytes()[:-100])
    first, *rest = verb.split()
    done = randes(first, bank, *rest)
    assert done.code == 6 and done.err.count(str(bank)) == 1, done.err
    assert done.err.endswith("(a damaged bank; restore a copy)\n")


def test_an_empty_name_is_told_of(bank: Path, randes: Run) -> None:
    for words in (["inspect", ""], ["pack", "", bank, "-o", "x"], ["add", bank, ""]):
        done = randes(*words)
        assert (done.code, "name a path or a Hub id, not ''" in done.err) == (2, True), done.err
    assert randes("inspect", "a\0b").code == 2


def test_a_task_that_is_the_base_is_said_so(family: Path, randes: Run) -> None:
    base = family / "base.safetensors"
    done = randes("pack", base, f"same={base}", family / "a.safetensors", "-o", family / "x.randes")
    assert "same: the base itself, to the byte" in done.err
    assert done.err.count("the base itself") == 1


def test_targets_that_are_nowhere_are_said_so(family: Path, randes: Run) -> None:
    words = ["pack", family / "base.safetensors", family / "a.safetensors", "--targets"]
    done = randes(*words, "nowhere", "-o", family / "x.randes")
    assert "--targets 'nowhere': no tensor has such a name, so none is transformed" in done.err
    assert "--targets" not in randes(*words, "wte", "-o", family / "y.randes").err


def test_what_holds_for_many_tasks_is_said_once_and_the_worst_are_shown(
    family: Path, randes: Run
) -> None:
    b = family / "b.safetensors"
    words = ["pack", family / "base.safetensors", *(f"task-{n:03}={b}" for n in range(40))]
    short = randes(*words, "-o", family / "x.randes")
    assert "task-000, task-001, task-002 and 37 more: keeps 1 tensor exactly" in short.err
    assert "… 20 more (--full)" in short.out
    assert sum(line.startswith("task-") for line in short.out.splitlines()) == 20
    full = randes(*words, "-o", family / "y.randes", "--full")
    assert sum(line.startswith("task-") for line in full.out.splitlines()) == 40


def test_a_verdict_is_the_same_in_words_and_in_json(bank: Path, randes: Run) -> None:
    found = randes("inspect", bank, "--json").json
    text = " ".join(randes("inspect", bank).out.split())
    assert found["expect"] and all(sentence in text for sentence in found["expect"])
    for task in found["tasks"]:
        assert task["verdict"] == "nearly all" and task["expected"] == [0.98, 1.0]
    assert "(good)" not in text and "why: docs/method.md, What to expect" in text


def test_a_command_that_is_told_takes_a_name_that_begins_with_a_dash(
    family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    told = randes("pack", "base.safetensors", "a.safetensors", "-o", "-x.randes").err
    command = next(line for line in told.splitlines() if line.startswith("randes seal"))
    assert randes(*command.partition(" would")[0].split()[1:]).code == 0
    assert (family / "-x-2bit.randes").is_file()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("pack base.safetensors loop -o x", 5, "loop: a link to nothing, or to itself"),
        ("pack loop a.safetensors -o x", 5, "loop: a link to nothing, or to itself"),
        ("pack base.safetensors inside -o x", 74, "inside/model.safetensors: Too many levels"),
        ("inspect loop", 74, "loop: Too many levels"),
        ("add loop a.safetensors", 5, "loop: a link to nothing, or to itself"),
        ("verify bank.randes --against a=loop", 5, "loop: a link to nothing, or to itself"),
        ("pack base.safetensors a.safetensors -o loop", 2, "loop: exists"),
        ("unpack bank.randes a -o loop", 2, "loop: a file is where the output's folder"),
    ],
)
def test_a_link_that_leads_to_itself_is_told_of(
    line: str,
    code: int,
    said: str,
    bank: Path,
    family: Path,
    randes: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(family)
    (family / "loop").symlink_to("loop")
    (family / "inside").mkdir()
    (family / "inside" / "model.safetensors").symlink_to("model.safetensors")
    (family / "inside" / "config.json").symlink_to("config.json")
    result = randes(*line.split())
    assert said in result.err and len(result.err.strip().splitlines()) == 1
    assert result.code == code
