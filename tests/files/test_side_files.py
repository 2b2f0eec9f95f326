"""Side files: how large they may be, and that code stays behind."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from randes_cli.errors import CheckpointError, UsageError
from randes_cli.files import side_files
from randes_cli.files.local.guard import one_command, refuse_input
from randes_cli.files.local.lent_files import files_for, with_lent
from randes_cli.files.side_files import SideFile, find_side_files, is_side_file


def array(value: np.ndarray[Any, Any]) -> bytes:
    file = BytesIO()
    np.save(file, value)
    return file.getvalue()


#: A structure that holds an object behind many numbers.
LATE = np.zeros(1, [*((f"field{number}", "f4") for number in range(50)), ("o", "O")])
CARRIED = {
    "config.json": b"{}",
    "gliner_config.json": b"{}",
    "language_model/attrs.json": b"{}",
    "speaker/v2/prompt.npy": array(np.ones(3, np.float32)),
    "tokenizer.model.v3": b"\n\x0e\n\x05<unk>\x15",
    "spiece.model": b"\n\x0e\n\x05<unk>\x15",
    "vocab.bpe": "Ġa b\n".encode(),
    "artifact.metadata": b"{}",
    "LICENSE": b"terms",
}
LEFT_OUT = {
    "value_head.safetensors": (b"", "other weights"),
    "adapter.fra.safetensors": (b"", "other weights"),
    "language_model/5gram.bin": (b"x", "other weights"),
    "model_head.pkl": (b"x", "a pickle"),
    "renamed.json": (b"\x80\x04\x95", "a pickle"),
    "objects.npy": (array(np.array([{}], object)), "a pickle"),
    "late.npy": (array(LATE), "a pickle"),
    "words.npy": (array(np.array([{}], object)).replace(b"'|O' ", b"'|''O'"), "a pickle"),
    "no_array.npy": (b"cos\nsystem\n(S'true'\ntR.", "a pickle"),
    "broken.npz": (b"PK\x03\x04", "a pickle"),
    "latin.yaml": (b"name: caf\xe9", "no text"),
    "optimizer.pt": (b"x", "state of a training run"),
    "training_args.bin": (b"x", "state of a training run"),
    "train.sh": (b"x", "code"),
    "runner": (b"#!/bin/sh", "code"),
    "modeling_x.py": (b"print()", "code, see --trust-remote-code-files"),
    "logo.png": (b"x", "no text"),
    "blob": (b"\0\1", "no text"),
    ".gitattributes": (b"x", "hidden"),
    "a b.json": (b"{}", "a name with other characters than A-Z a-z 0-9 . _ -"),
    "old.safetensors.index.json": (b"{}", "an index of weight files"),
}


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_small_text_and_data_travel_and_the_rest_is_listed(tmp_path: Path) -> None:
    put(tmp_path, {**CARRIED, **{name: data for name, (data, _) in LEFT_OUT.items()}})
    (tmp_path / "checkpoint-500").mkdir()
    found, left_out = find_side_files(tmp_path, [], code=False)
    assert set(found) == set(CARRIED)
    assert left_out == {
        **{name: reason for name, (_, reason) in LEFT_OUT.items()},
        "checkpoint-500/": "a checkpoint of its own, or the state of a training run",
    }


def test_a_sub_folder_whose_weights_stay_behind_stays_behind_whole(tmp_path: Path) -> None:
    lost = ("merged/model.safetensors", "merged/config.json", "merged/deep/adapter_config.json")
    kept = ("vae/config.json", "lm/attrs.json", "vae/x/config.json")
    put(tmp_path, dict.fromkeys((*lost, *kept, "vae/x/other.safetensors", "lm/5gram.bin"), b"{}"))
    used = tmp_path / "vae" / "x" / "model.safetensors"
    found, left_out = find_side_files(tmp_path, [used], code=False)
    assert set(found) == set(kept)
    assert left_out == {
        "merged/": "a model or an adapter of its own",
        "lm/5gram.bin": "other weights",
        "vae/x/other.safetensors": "other weights",
    }


def test_keys_and_logs_of_trackers_stay_behind_but_old_banks_may_have_them(tmp_path: Path) -> None:
    keys = ("id_rsa", "token", "Credentials.json", "secrets.yaml", "host.pem", "run/prod.env")
    logs = ("wandb/run-1/files/wandb-metadata.json", "run/mlruns/meta.yaml")
    plain = ("tokens.txt", "special_tokens_map.json", "keys.json", "wandb.json")
    put(tmp_path, dict.fromkeys((*keys, *logs, *plain), b"{}"))
    found, left_out = find_side_files(tmp_path, [], code=True)
    assert set(found) == set(plain)
    assert left_out == {
        **dict.fromkeys(keys, "what may be a key or a password"),
        **dict.fromkeys(("wandb/", "run/mlruns/"), "logs of a training run"),
    }
    assert all(map(is_side_file, (*keys, *logs)))


def test_arrays_of_objects_are_found_inside_compressed_files(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "mel_filters.npz", a=np.ones(3), b=np.zeros((2, 2)))
    np.savez_compressed(tmp_path / "objects.npz", a=np.array([{}], object))
    found, left_out = find_side_files(tmp_path, [], code=False)
    assert (set(found), left_out) == ({"mel_filters.npz"}, {"objects.npz": "a pickle"})


def test_code_travels_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path, {"modeling_x.py": b"#!/usr/bin/env python", "config.json": b"{}"})
    found, _ = find_side_files(tmp_path, [], code=True)
    assert sorted(found) == ["config.json", "modeling_x.py"]
    assert is_side_file("modeling_x.py")


def test_files_over_a_limit_are_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"a.json": b"{}", "b.json": b"{  }", "c.unknown": b"123", "d.txt": b"1"})
    put(tmp_path, {"e.model.v3": b"123"})
    monkeypatch.setattr(side_files, "MOST_BYTES", 3)
    monkeypatch.setattr(side_files, "MOST_UNKNOWN", 2)
    found, left_out = find_side_files(tmp_path, [], code=False)
    assert sorted(found) == ["a.json", "d.txt", "e.model.v3"]
    assert left_out == {"b.json": "4 bytes, 3 at most", "c.unknown": "3 bytes, 2 at most"}
    monkeypatch.setattr(side_files, "MOST_TOGETHER", 5)
    assert sorted(find_side_files(tmp_path, [], code=False)[0]) == ["a.json", "d.txt"]
    monkeypatch.setattr(side_files, "MOST_FILES", 1)
    _, left_out = find_side_files(tmp_path, [], code=False)
    assert left_out["d.txt"].startswith("more than 1 files")


def test_a_folder_of_many_such_files_is_one_entry_and_hides_no_others(tmp_path: Path) -> None:
    put(tmp_path, {f"images/{number}.png": b"x" for number in range(30)})
    states = {f"rng_state_{number}.pth": b"x" for number in range(21)}
    put(tmp_path, {**states, **{f"value_head_{number}.pth": b"x" for number in range(21)}})
    put(tmp_path, {"images/head.bin": b"x", "head.pth": b"x", "head.pkl": b"x"})
    assert find_side_files(tmp_path, [], code=False)[1] == {
        "images/*.png": "30 files, such as images/0.png: no text",
        "images/head.bin": "other weights",
        "*.pth": "22 files, such as head.pth: other weights",
        **dict.fromkeys(states, "state of a training run"),
        "head.pkl": "a pickle",
    }


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "model" / "own").mkdir(parents=True)
    put(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "model" / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "model" / "same.json").symlink_to("config.json")
    put(tmp_path / "models--a", {"refs/main": b"0"})
    (tmp_path / "model" / "refs.json").symlink_to(tmp_path / "models--a" / "refs" / "main")
    (tmp_path / "model" / "gone.json").symlink_to("nowhere")
    (tmp_path / "model" / "own" / "loop").symlink_to(tmp_path / "model")
    found, left_out = find_side_files(tmp_path / "model", [], code=False)
    assert sorted(found) == ["config.json", "same.json"]
    assert left_out == {
        **dict.fromkeys(("tokenizer.json", "refs.json"), "a link that leads out of the folder"),
        "gone.json": "a link to nothing",
        "own/loop/": "a link to a folder",
    }


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with one_command():
        found, _ = find_side_files(tmp_path, [], code=False)
        with pytest.raises(UsageError, match="is the input"):
            refuse_input(tmp_path / "config.json")
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
    clip = {"open_clip_config.json": ours}
    assert files_for(clip, {"open_clip_config.json": theirs}) == (clip, False)


def named(*names: str) -> dict[str, SideFile]:
    return {name: SideFile(Path(name), name, 1) for name in names}


BASE_FILES = named(
    *("config.json", "README.md", "LICENSE", "tokenizer.json", "tokenizer_config.json"),
    *("added_tokens.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
    *("preprocessor_config.json", "tokenizer_2/vocab.json", "tokenizer_2/tokenizer_config.json"),
)
CHAT = {"chat_template.jinja", "additional_chat_templates/tool.jinja"}


@pytest.mark.parametrize(
    ("own", "not_lent"),
    [
        ([], set()),
        (["tokenizer.json", "tokenizer_config.json"], {"added_tokens.json", *CHAT}),
        (["tokenizer_config.json"], {"added_tokens.json", *CHAT}),
        (["chat_template.jinja"], {"additional_chat_templates/tool.jinja"}),
        (["tokenizer.model"], {"tokenizer.json", "added_tokens.json"}),
        (["processor_config.json"], {"preprocessor_config.json"}),
        (["tokenizer_2/tokenizer.json"], {"tokenizer_2/vocab.json"}),
    ],
)
def test_a_task_with_a_tokenizer_is_lent_no_part_of_the_base_s(
    own: list[str], not_lent: set[str]
) -> None:
    """Whose template would be read in the place of the one in its own tokenizer_config.json."""
    found = with_lent(named(*own), BASE_FILES)
    assert set(found) == {*own, *BASE_FILES} - not_lent - {"README.md"}


def test_of_names_that_differ_in_case_alone_one_travels_and_the_others_are_named(
    tmp_path: Path,
) -> None:
    for name in ("config.json", "Config.json", "CONFIG.JSON", "A/x.txt", "a/X.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"{name}"')
    found, left_out = find_side_files(tmp_path, [], code=False)
    assert set(found) == {"config.json", "A/x.txt", "README.md"}
    assert left_out == {
        **dict.fromkeys(("CONFIG.JSON", "Config.json"), "differs from config.json in case alone"),
        "a/X.txt": "differs from A/x.txt in case alone",
    }
