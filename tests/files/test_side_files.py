"""Side files: which names travel, how large they may be, and that code stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli.errors import CheckpointError
from randes_cli.files import side_files
from randes_cli.files.side_files import SideFile, files_for, find_side_files, is_side_file


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "open_clip_config.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "1_Pooling/config.json",
        "id2label.json",
        "LICENSE",
    ],
)
def test_what_makes_weights_loadable_travels(name: str) -> None:
    assert is_side_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../config.json",
        "/config.json",
        "a/b/config.json",
        "./config.json",
        "..\\config.json",
        "unet/../config.json",
        ".ssh/config.json",
        "config.json\0",
        "config.json\n",
        "con fig.json",
        "C:config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "train.sh",
        "README.md",
        ".env",
        "x" * 120 + "/config.json",
    ],
)
def test_other_names_do_not(name: str) -> None:
    assert not is_side_file(name)


def test_code_travels_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "modeling_x.py").write_text("print()")
    (tmp_path / "config.json").write_text("{}")
    found, notes = find_side_files(tmp_path, [], code=False)
    assert list(found) == ["config.json"]
    assert notes == ["modeling_x.py: code, left out (see --trust-remote-code-files)"]
    found, notes = find_side_files(tmp_path, [], code=True)
    assert sorted(found) == ["config.json", "modeling_x.py"]
    assert notes == []


def test_a_file_that_is_too_large_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_files, "MOST_BYTES", 3)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{  }")
    found, notes = find_side_files(tmp_path, [], code=False)
    assert list(found) == ["config.json"]
    assert notes == ["tokenizer.json: 4 bytes, left out (side files have 3 at most)"]


def test_folders_that_no_index_names_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "config.json").write_text("{}")
    assert find_side_files(tmp_path, [], code=False) == ({}, [])


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found, _ = find_side_files(tmp_path, [], code=False)
    (tmp_path / "config.json").write_text("{ }")
    with pytest.raises(CheckpointError, match=r"config\.json: changed"):
        found["config.json"].content()


def test_a_task_without_a_config_gets_the_bases_files_and_keeps_its_own() -> None:
    config, ours, theirs = (SideFile(Path(name), name, 1) for name in ("config", "ours", "theirs"))
    base = {"config.json": config, "tokenizer.json": theirs}
    assert files_for({"tokenizer.json": ours}, base) == (
        {"config.json": config, "tokenizer.json": ours},
        True,
    )
    own = {"config.json": ours}
    assert files_for(own, base) == (own, False)
    assert files_for({}, {}) == ({}, False)
