"""Side files: the config, tokenizer and the like that make weights loadable.

A name is carried only when it is on the list below, so that no folder smuggles in what
`from_pretrained` does not need; code only when the user says so, on the way in and out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash

from randes_cli.errors import CheckpointError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.files.guard import note_input

#: Largest side file, in bytes: the tokenizers of today stay below 40 MB.
MOST_BYTES = 64 * 2**20
#: A folder without any of these gets the base's side files.
CONFIGS = ("config.json", "model_index.json", "adapter_config.json", "modules.json")

_FILES = re.compile(
    r"config\.json|generation_config\.json|adapter_config\.json|model_index\.json|modules\.json"
    r"|quantize_config\.json|open_clip_config\.json|scheduler_config\.json"
    r"|config_sentence_transformers\.json|sentence_\w+_config\.json"
    r"|(pre)?processor_config\.json|(image_|video_|audio_)?(pre)?processor_config\.json"
    r"|video_preprocessor_config\.json|feature_extractor_config\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(json|txt|bpe)|merges\.txt|bpe\.codes|normalizer\.json|tekken\.json|emoji\.json"
    r"|tokenizer\.model(\.v\d+)?|spiece\.model|sentencepiece(\.bpe)?\.model|spm\.model"
    r"|(source|target)\.spm|[\w-]*\.tiktoken|chat_template\.(jinja|json)"
    r"|(id2label|label2id|labels|label_map|classes|class_names)\.(json|txt)"
    r"|LICENSE(\.txt|\.md)?|NOTICE(\.txt|\.md)?"
)
_FOLDERS = re.compile(r"additional_chat_templates|\d+_[A-Za-z]\w*")
_TEMPLATE = re.compile(r"[\w-]+\.jinja")
_CODE = re.compile(r"\w[\w-]*\.py")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class SideFile:
    """One file to carry: where it is, the XXH3-128 of its content in hexadecimal, bytes."""

    path: Path
    digest: str
    size: int

    def content(self) -> bytes:
        """Its bytes. Raises CheckpointError when they changed since it was found."""
        data = _read(self.path)
        if content_digest(data) != self.digest:
            raise CheckpointError(f"{self.path}: changed while the bank was made")
        return data


def content_digest(data: bytes) -> str:
    """What a side file's content is called in a bank: its XXH3-128, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


def _read(path: Path) -> bytes:
    note_input(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise wrap_os_error(error, path, "reading") from error


def is_code(name: str) -> bool:
    """Whether a side file is Python code, which is written only where the user says so."""
    return bool(_CODE.fullmatch(name.rpartition("/")[2]))


def is_side_file(name: str) -> bool:
    """Whether a name (``tokenizer/vocab.json``) may be carried and written; code included.

    At most one folder deep, and made of letters that mean nothing to any file system.
    """
    folder, slash, file = name.rpartition("/")
    if not _PART.fullmatch(file) or (slash and not _PART.fullmatch(folder)):
        return False
    if folder == "additional_chat_templates":
        return bool(_TEMPLATE.fullmatch(file))
    return bool(_FILES.fullmatch(file)) or is_code(file)


def find_side_files(
    root: Path, components: Iterable[str], *, code: bool
) -> tuple[dict[str, SideFile], list[str]]:
    """The side files of a folder by name, and a line for each that was left out.

    Looks in the folder itself, the folders that its model_index.json names (a scheduler has
    no weights), `components`, and the few that tokenizers and sentence models use.
    """
    made: dict[str, SideFile] = {}
    notes: list[str] = []
    pipeline = (root / "model_index.json").is_file() or (root / "modules.json").is_file()
    wanted = set(components)
    try:
        entries = sorted(root.iterdir())
        for folder in [entry for entry in entries if entry.is_dir()]:
            if folder.name in wanted or _FOLDERS.fullmatch(folder.name) or pipeline:
                entries += sorted(folder.iterdir())
    except OSError as error:
        raise wrap_os_error(error, root, "listing") from error
    for path in entries:
        name = path.relative_to(root).as_posix()
        if not is_side_file(name) or not path.is_file():
            continue
        size = path.stat().st_size
        if is_code(name) and not code:
            notes.append(f"{name}: code, left out (see --trust-remote-code-files)")
        elif size > MOST_BYTES:
            notes.append(f"{name}: {size} bytes, left out (side files have {MOST_BYTES} at most)")
        else:
            made[name] = SideFile(path, content_digest(_read(path)), size)
    return made, notes


def files_for(
    own: Mapping[str, SideFile], base: Mapping[str, SideFile]
) -> tuple[Mapping[str, SideFile], bool]:
    """A task's side files, and whether they are the base's because it has no config itself."""
    if any(name in own for name in CONFIGS) or not base:
        return own, False
    return {**base, **own}, True
