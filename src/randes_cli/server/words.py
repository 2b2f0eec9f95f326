"""Text to tokens and back: one tokenizer for all tasks that came with the same, a template each."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from randes_cli.api import Bank
from randes_cli.read import places
from randes_cli.server.errors import Refused

#: Small files that decide what a tokenizer does.
_FILES = re.compile(
    r"(.*/)?((added_|special_)?tokens?(izer|_map|s)?|vocab|merges|spiece|sentencepiece|bpe|source|"
    r"target|processor|preprocessor|video_preprocessor).*|.*\.(model|tiktoken|bpe)",
    re.IGNORECASE,
)
_TEMPLATE = "chat_template.jinja"


class Words:
    """One task's tokenizer, used from any thread, and its own chat template (None: none).

    The lock is for what sets a tokenizer's truncation; nothing that decodes waits for a long text.
    """

    def __init__(self, tokenizer: Any, template: str | None, lock: threading.Lock) -> None:
        self.tokenizer, self.template, self._lock = tokenizer, template, lock

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text, with those that the tokenizer puts around it."""
        return self.encode_for(text, None, special=special)[0]

    def encode_for(
        self, text: str, pair: str | None, *, special: bool = True, longest: int | None = None
    ) -> tuple[list[int], list[int] | None]:
        """Tokens of a text (or of two), and their segments where the model has such.

        With `longest`, no more than so many: texts are cut as the tokenizer cuts them.
        """
        try:
            with self._lock:
                found = self.tokenizer(
                    text,
                    pair,
                    add_special_tokens=special,
                    verbose=False,
                    truncation=longest is not None,
                    max_length=longest,
                )
        except (TypeError, UnicodeError, ValueError) as error:
            raise Refused(422, f"a text that is none: {error}", param="input") from None
        return list(found["input_ids"]), found.get("token_type_ids")

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Tokens of a conversation, as the task's own template writes it.

        A developer's words are the system's, where the template knows no developer.
        """
        if self.template is None:
            raise Refused(
                422, "this task has no chat template; ask /v1/completions", param="messages"
            )
        if "developer" not in self.template:
            system = {"role": "system"}
            messages = [{**m, **system} if m["role"] == "developer" else m for m in messages]
        try:
            with self._lock:
                text = self.tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self.template,
                    add_generation_prompt=True,
                    tokenize=False,
                )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise Refused(
                422, f"the task's chat template refuses this: {error}", param="messages"
            ) from None
        return self.encode(text, special=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """Their text, without special tokens, as it is."""
        made: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return made

    def name(self, token: int) -> str:
        """One token's text, a special one's, too."""
        made: str = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return made

    @property
    def length(self) -> int | None:
        """The most tokens that the tokenizer's model takes, where it says so."""
        most = int(self.tokenizer.model_max_length)
        return most if most < 10**9 else None


class Tokenizers:
    """The tokenizers of a bank: each loaded once, whatever the number of tasks that have it."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._made: dict[str, tuple[Any, threading.Lock]] = {}

    def words(self, files: Mapping[str, str], load: Callable[[], Any]) -> Words:
        """Of a task with these side files (digest by name); `load` makes its tokenizer."""
        config = _config(self._bank, files)
        template = _template(self._bank, files, config)
        key = _key(files, config)
        if key not in self._made:
            found = load()
            self._made[key] = (getattr(found, "tokenizer", found), threading.Lock())
        return Words(self._made[key][0], template, self._made[key][1])


def side_file(bank: Bank, files: Mapping[str, str], name: str) -> bytes | None:
    """The bytes of a task's small file, or None. Raises BankDamaged."""
    content = files.get(name)
    return None if content is None else places.side_file(bank.file, content)


def _config(bank: Bank, files: Mapping[str, str]) -> dict[str, Any]:
    """The tokenizer's; empty where there is none, or it is no JSON object."""
    try:
        found = json.loads(side_file(bank, files, "tokenizer_config.json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _template(bank: Bank, files: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
    """The file's template goes before the config's; of several named ones the default."""
    data = side_file(bank, files, _TEMPLATE)
    if data is not None:
        return data.decode("utf-8", "replace")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _key(files: Mapping[str, str], config: Mapping[str, Any]) -> str:
    """What two tasks share whose tokenizers differ in the template at most."""
    ours = {
        name: content
        for name, content in sorted(files.items())
        if _FILES.fullmatch(name) and name != "tokenizer_config.json"
    }
    rest = {name: value for name, value in config.items() if name != "chat_template"}
    return json.dumps([ours, rest], sort_keys=True)
