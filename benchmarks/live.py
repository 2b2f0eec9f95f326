"""One batch whose rows are eight fine-tunes, beside one model and beside eight.

    python benchmarks/live.py [--layers N] [--width N] [--bits 2]

Makes a random Llama and eight fine-tunes in a temporary folder, packs them with two-sided signs,
and prints memory and the time of a forward pass of eight rows of one token (a decoding step) and
of 64. Ways are measured in turns, medians are printed: a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers as tf

import randes_cli
from randes_cli import PackOptions, TaskInput, Transform, pack

TASKS = [f"task{number}" for number in range(8)]


def make_bank(folder: Path, layers: int, width: int, bits: int, vocabulary: int = 8192) -> Path:
    """A bank of a random model and eight fine-tunes of it."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    model = tf.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    for task in TASKS:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * weight.std(correction=0) * torch.randn_like(weight))
        model.save_pretrained(folder / task)
    options = PackOptions(transform=Transform.from_preset("two-sided"), bits=bits)
    inputs = [TaskInput(task, str(folder / task)) for task in TASKS]
    pack(str(folder / "base"), inputs, folder / "bank.randes", options)
    return folder / "bank.randes"


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if turn:
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in taken.items()}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bank = make_bank(Path(folder), given.layers, given.width, given.bits)
        open_ = randes_cli.transformers.from_bank
        one = open_(bank)
        eight = [open_(bank, task) for task in TASKS]
        mixed = {
            hold: randes_cli.attach(open_(bank), bank, hold=hold) for hold in ("dense", "codes")
        }
        size = mixed["dense"].memory["model"]
        print(f"{size / 4e6:.0f}M parameters in float32, {torch.get_num_threads()} threads")
        print(f"memory      one model 1.00, eight {len(eight):.2f}", end="")
        for hold, model in mixed.items():
            print(f", attached ({hold}) {1 + model.memory['tasks'] / size:.2f}", end="")
        print()
        for tokens in (1, 64):
            ids = torch.randint(0, 8192, (8, tokens))

            def each(ids: torch.Tensor = ids) -> None:
                for row, model in enumerate(eight):
                    model(input_ids=ids[row : row + 1])

            with torch.inference_mode():
                ways: dict[str, Callable[[], Any]] = {
                    "one model": lambda ids=ids: one(input_ids=ids),
                    "eight": each,
                    **{
                        f"attached ({hold})": lambda ids=ids, model=model: model(
                            input_ids=ids, adapter_names=TASKS
                        )
                        for hold, model in mixed.items()
                    },
                }
                found = in_turns(ways, given.rounds)
            line = ", ".join(f"{k} {v / found['one model']:.2f}" for k, v in found.items())
            print(f"8 × {tokens:<3} time  {line}  (one: {found['one model']:.0f} ms)")


if __name__ == "__main__":
    main()
