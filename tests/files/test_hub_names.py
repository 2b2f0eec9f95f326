"""Names of models on the Hub: which words are one, and what a source records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from randes_cli.errors import UsageError
from randes_cli.files.hub.cache import remember
from randes_cli.files.hub.ref import HubRef, is_bank_there, is_model_id, parse_ref, recorded_ref
from tests.files.hub_models import ID, REF


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org/name", HubRef("org/name")),
        ("org/name@v1.0", HubRef("org/name", "v1.0")),
        ("org/Qwen2.5-0.5B@refs/pr/3", HubRef("org/Qwen2.5-0.5B", "refs/pr/3")),
        ("org/name:sub/model.safetensors", HubRef("org/name", None, "sub/model.safetensors")),
        ("org/name@rev:sub/", HubRef("org/name", "rev", "sub")),
        ("hf://org/name", HubRef("org/name")),
        ("hf://models/org/name@rev:a.st", HubRef("org/name", "rev", "a.st")),
        ("hf://org/name/sub/a.st", HubRef("org/name", None, "sub/a.st")),
        ("hf://org/name@rev/sub/a.st", HubRef("org/name", "rev", "sub/a.st")),
        ("hf://org/name@refs/pr/3/a.st", HubRef("org/name", "refs/pr/3", "a.st")),
        ("hf://org/name@refs/pr/3", HubRef("org/name", "refs/pr/3")),
    ],
)
def test_names_of_the_hub_are_read(text: str, found: HubRef) -> None:
    assert parse_ref(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "./org/name",
        "/org/name",
        "../name",
        "~/name",
        "a/b/c",
        "out/model.safetensors",
        "out/bank.randes",
        "org/name@",
        "org/name:",
        "org/.hidden",
        "",
    ],
)
def test_what_cannot_be_on_the_hub_is_left_to_the_file_system(text: str) -> None:
    assert parse_ref(text) is None


def test_a_path_that_exists_wins_unless_the_scheme_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_ref("org/name") is None
    assert parse_ref("hf://org/name") == HubRef("org/name")


def test_ids_and_banks_there_are_told_from_files() -> None:
    ids = ("org/name", "org/name.st", "org/name:a.st", "org/name@v1:a.st", "a/b/c", "name")
    assert list(filter(is_model_id, ids)) == ["org/name", "org/name:a.st", "org/name@v1:a.st"]
    banks = ("org/name:b.randes", "org/name.randes", "org/name:b.st", "s3://a/b:c.randes")
    assert list(filter(is_bank_there, banks)) == ["org/name:b.randes"]


def test_no_revision_is_noted_outside_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision in ("../../../out", "a/../../../../out", "..\\out", "0" * 40):
        remember("org/name", revision, "1" * 40)
    assert not list(tmp_path.iterdir())
    remember("org/name", "refs/pr/3", "1" * 40)
    noted = tmp_path / "hub" / "models--org--name" / "refs" / "refs" / "pr" / "3"
    assert noted.read_text() == "1" * 40


@pytest.mark.parametrize(
    "text",
    ["datasets/org/name", "hf://datasets/org/name", "hf://spaces/o/n@main", "hf://buckets/o/n"],
)
def test_datasets_and_spaces_are_refused_by_kind(text: str) -> None:
    with pytest.raises(UsageError, match=r"randes reads models of the Hub, not (data|spa|buck)"):
        parse_ref(text)


@pytest.mark.parametrize("text", ["hf://name", "hf://org/na me", "hf://", "hf://org/name@"])
def test_a_broken_hub_name_with_the_scheme_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a model of the Hub"):
        parse_ref(text)


@pytest.mark.parametrize("text", ["org/name:../x", "hf://org/name:a/./b", "org/name:a//b"])
def test_a_path_that_leaves_the_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a path inside a repository"):
        parse_ref(text)


def test_a_reference_reads_back_what_it_writes_and_names_a_task() -> None:
    for ref in (REF, HubRef(ID, "v1"), HubRef(ID, None, "sub/x.safetensors")):
        assert parse_ref(str(ref)) == ref
    assert [HubRef(ID).name, HubRef(ID, "v", "sub/x.st").name, HubRef(ID, None, "unet").name] == [
        "model",
        "x",
        "unet",
    ]


def test_only_a_source_with_a_whole_commit_is_a_recorded_model() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert recorded_ref(f"{ID}@{commit}:sub/x.st") == HubRef(ID, commit, "sub/x.st")
    for source in ("models/base", "models/base@v1", "base.safetensors", f"{ID}@{commit[:39]}"):
        assert recorded_ref(source) is None


def test_nothing_of_the_client_is_imported_to_read_a_name() -> None:
    script = (
        "import sys; from randes_cli.files.hub.repository import open_hub; "
        "from randes_cli.ops.push import push; "
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
