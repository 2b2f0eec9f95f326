"""Serve two fine-tuned models in turn from one bank and one model in memory.

    python examples/hot_swap.py

Makes a small random language model and two fine-tunes of it, packs them, and swaps between
them inside one `transformers` model. Needs `transformers`; downloads nothing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from transformers import LlamaConfig, LlamaForCausalLM

from randes_cli import Bank, TaskInput, pack

CONFIG = LlamaConfig(
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    vocab_size=256,
    tie_word_embeddings=True,
    pad_token_id=0,
)
PROMPT = b"The bank says: "
TEXTS = {"greeter": b"good morning to you all! ", "counter": b"one, two, three, four; "}


def tokens(text: bytes) -> torch.Tensor:
    """Bytes as a batch of one sequence."""
    return torch.tensor([list(text)])


def fine_tune(model: LlamaForCausalLM, text: bytes) -> None:
    """Teach a model to say one sentence over and over."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    batch = tokens(PROMPT + text * 3)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()


def say(model: LlamaForCausalLM) -> str:
    """What a model makes of the prompt."""
    batch = tokens(PROMPT)
    made = model.generate(
        batch, attention_mask=torch.ones_like(batch), max_new_tokens=24, do_sample=False
    )
    return bytes(made[0, len(PROMPT) :].tolist()).decode("ascii", "replace")


def main() -> None:
    """Pack two fine-tunes, then answer with each of them in turn."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = LlamaForCausalLM(CONFIG)
        save_model(model, str(folder / "base.safetensors"))
        for task, text in TEXTS.items():
            load_model(model, folder / "base.safetensors")
            fine_tune(model, text)
            save_model(model, str(folder / f"{task}.safetensors"))
        inputs = [TaskInput(task, str(folder / f"{task}.safetensors")) for task in TEXTS]
        pack(str(folder / "base.safetensors"), inputs, folder / "bank.randes")
        model.eval()
        with Bank.open(folder / "bank.randes") as bank:
            for task in (*TEXTS, *TEXTS):
                start = time.perf_counter()
                bank.load_into(model, task)
                seconds = time.perf_counter() - start
                print(f"{task:8} (swapped in {1000 * seconds:5.1f} ms): {say(model)}")


if __name__ == "__main__":
    main()
