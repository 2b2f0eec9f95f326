"""Side files that a task without a config of its own is lent of its base's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from randes_cli.files.side_files import SideFile

#: A folder without any of these gets the base's side files.
CONFIGS = ("config.json", "model_index.json", "adapter_config.json", "modules.json")
#: What is told of one model and not needed to load another.
_ABOUT = re.compile(r"README.*|.*_results\.json|trainer_state\.json", re.IGNORECASE)
_VOCABULARY = (
    r"tokenizer\.(json|model.*)|vocab\..*|merges\.txt|(spiece|sentencepiece.*)\.model|tekken\.json"
    r"|.*\.tiktoken"
)
_WORDS = r"tokenizer_config\.json"
_TEMPLATE = r"(additional_chat_templates/.*|chat_template\.\w+)"
_PROCESSOR = r"(\w+_)?(pre)?processor_config\.json"
#: Files of a base that a task is not lent, where it has some of its own in that folder, for
#: libraries read the one in the place of the other.
_SETS = [
    (re.compile(what), re.compile(unless))
    for what, unless in (
        (_VOCABULARY, _VOCABULARY),
        (_WORDS, _WORDS),
        (r"(special_tokens_map|added_tokens)\.json", f"{_VOCABULARY}|{_WORDS}"),
        (_TEMPLATE, f"{_TEMPLATE}|{_WORDS}"),
        (_PROCESSOR, _PROCESSOR),
    )
]
_FOLDER = re.compile(r"((?:.*?/)??)((?:additional_chat_templates/)?[^/]+)")


def files_for(
    own: Mapping[str, SideFile], base: Mapping[str, SideFile]
) -> tuple[Mapping[str, SideFile], bool]:
    """A task's side files, and whether some are the base's because it has no config itself."""
    if any(name in own for name in CONFIGS) or not base:
        return own, False
    made = with_lent(own, base)
    return made, len(made) > len(own)  # OpenCLIP's lack nothing


def with_lent(own: Mapping[str, SideFile], base: Mapping[str, SideFile]) -> dict[str, SideFile]:
    """A task's side files, and those of the base that it can load with: not what is told of it."""
    places = [_apart(name) for name in own]
    return {**{n: file for n, file in base.items() if _is_lent(n, places)}, **own}


def _is_lent(name: str, own: Collection[tuple[str, str]]) -> bool:
    folder, file = _apart(name)
    unless = [pattern for what, pattern in _SETS if what.fullmatch(file)]
    return not _ABOUT.fullmatch(name) and not any(
        where == folder and pattern.fullmatch(other) for pattern in unless for where, other in own
    )


def _apart(name: str) -> tuple[str, str]:
    """The folder that a side file lies in, and the rest of its name."""
    found = _FOLDER.fullmatch(name)
    return (found[1], found[2]) if found else ("", name)
