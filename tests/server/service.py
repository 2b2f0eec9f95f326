"""A server in a thread of the test's process, small models for it, and what they answer alone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import openai
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import randes_cli
from randes_cli import PackOptions
from randes_cli.server.edition import Opening
from randes_cli.server.generating import Sizes
from randes_cli.server.service import Service, Serving
from tests.live.many import options, pack_folders
from tests.models import GROUPED, perturb

EIGHT = tuple(f"task-{number}" for number in range(8))
#: Asks without a limit, where httpx itself has one of five seconds: a busy machine is no failure.
http = httpx.Client(timeout=None, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
#: Writes a conversation; tasks may have others.
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@lru_cache(None)
def alphabet() -> dict[str, int]:
    """A token for each byte, behind three special ones."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {sign: number for number, sign in enumerate(["<pad>", "<s>", "</s>", *signs])}


def tokenizer(template: str | None = TEMPLATE, *, around: bool = False) -> Any:
    """A tokenizer of bytes; `around`: that puts special tokens around a text, as BERT's does."""
    made = Tokenizer(models.BPE(vocab=alphabet(), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if around:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B:1 </s>:1",
            special_tokens=[("<s>", 1), ("</s>", 2)],
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    found = tf.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    found.chat_template = template
    return found


def sizes() -> dict[str, Any]:
    return {**GROUPED, "vocab_size": len(alphabet()), "pad_token_id": 0}


def llama() -> Any:
    config = tf.LlamaConfig(**sizes(), max_position_embeddings=256, tie_word_embeddings=False)
    return tf.LlamaForCausalLM(config)


def text_bank(
    folder: Path,
    tasks: Sequence[str] = EIGHT,
    model: Any = None,
    given: PackOptions | None = None,
    *,
    first: int = 0,
    template: str | None = TEMPLATE,
) -> Path:
    """A bank of a text generator's fine-tunes; every second one has a template of its own."""
    torch.manual_seed(0)
    model = llama() if model is None else model
    model.save_pretrained(folder / "base")
    tokenizer(template).save_pretrained(folder / "base")
    for number, task in enumerate(tasks):
        perturb(model, first + number)
        model.save_pretrained(folder / task)
        own = template and template.replace("<assistant>", f"<{task}>") if number % 2 else template
        tokenizer(own).save_pretrained(folder / task)
    return pack_folders(folder, given or options(), tasks)


class Alone:
    """What each task's own model answers, unpacked."""

    def __init__(self, bank: Path) -> None:
        self.bank = bank
        self.model = lru_cache(None)(self._model)

    def _model(self, task: str | None) -> Any:
        return randes_cli.transformers.from_bank(self.bank, None if task == "base" else task).eval()

    @torch.inference_mode()
    def tokens(self, task: str, prompt: Sequence[int], most: int) -> list[int]:
        """The likeliest continuation."""
        ids = torch.tensor([list(prompt)])
        made = self.model(task).generate(ids, max_new_tokens=most, do_sample=False)
        return list(made[0, len(prompt) :].tolist())

    def text(self, task: str, prompt: str, most: int) -> str:
        """The same, as text of text."""
        own = tokenizer()
        found = self.tokens(task, own(prompt).input_ids, most)
        return str(own.decode(found, skip_special_tokens=True))

    def chat(self, task: str, said: str, most: int) -> str:
        """An answer to one turn, by the task's own template."""
        own = randes_cli.transformers.processor_from_bank(
            self.bank, None if task == "base" else task
        )
        prompt = own.apply_chat_template(
            [{"role": "user", "content": said}], add_generation_prompt=True, tokenize=False
        )
        return self.text(task, prompt, most)


@contextlib.contextmanager
def serving(
    bank: Path, sizes: Sizes | None = None, how: Serving | None = None, **more: Any
) -> Iterator[Service]:
    """A server of a bank, for the time of the block."""
    opening = Opening(str(bank), sizes=sizes or Sizes(rows=8, chunk=64), **more)
    service = Service(opening, how or Serving(port=0, look=0.05))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join()


def client(service: Service, **more: Any) -> openai.OpenAI:
    """OpenAI's own client of a server."""
    more = {"api_key": "none", "max_retries": 0, **more}
    return openai.OpenAI(base_url=f"{service.address}/v1", **more)


def connection(service: Service) -> socket.socket:
    """A bare connection to a server."""
    host, _, port = service.address.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)))


def until(true: Any) -> None:
    """Wait for something to become true; what never does stops the test run by its limit."""
    while not true():
        time.sleep(0.005)
