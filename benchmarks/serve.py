"""What a server of many fine-tunes costs, beside the other ways to run them.

    OMP_NUM_THREADS=1 python benchmarks/serve.py [--layers N] [--width N] [--bits 2]

Makes a random Llama with sixteen full fine-tunes and sixteen LoRA adapters in a temporary folder,
packs both with two-sided signs, and has sixteen prompts of 32 tokens continued by 32 tokens each:
by the server's batch, by a process a model, by one model whose weights are swapped, and (adapters)
by PEFT's mixed batch. Speed is in tokens for each second of processor time, which a busy machine
changes least; ways are measured in turns and medians printed. Memory is that of the weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model

import randes_cli
from randes_cli import PackOptions, TaskInput, Transform, pack
from randes_cli.server.answer import Answer
from randes_cli.server.generating import Generating, Sizes
from randes_cli.server.sampling import Chooser, Sampling
from randes_cli.server.texts import TextReader

TASKS = [f"task{number}" for number in range(16)]
LORA = [f"lora{number}" for number in range(16)]
ROWS, PROMPT, MOST, VOCABULARY = 16, 32, 32, 8192


@dataclass(frozen=True)
class Way:
    """One way to answer: how it runs, and the bytes of its weights."""

    name: str
    bytes: int
    run: Callable[[], Any]


def make_models(folder: Path, layers: int, width: int) -> None:
    """A random base, full fine-tunes of it, and adapters."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        eos_token_id=None,
    )
    model = tf.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    for task in TASKS:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * weight.std(correction=0) * torch.randn_like(weight))
        model.save_pretrained(folder / task)
    for name in LORA:
        base = tf.LlamaForCausalLM.from_pretrained(folder / "base")
        given = LoraConfig(r=8, init_lora_weights=False, target_modules="all-linear")
        get_peft_model(base, given).save_pretrained(folder / name)


def make_bank(folder: Path, tasks: Sequence[str], bits: int) -> Path:
    """A bank of some of them."""
    out = folder / f"{tasks[0]}-{len(tasks)}.randes"
    options = PackOptions(transform=Transform.from_preset("two-sided"), bits=bits)
    inputs = [TaskInput(task, str(folder / task)) for task in tasks]
    pack(str(folder / "base"), inputs, out, options)
    return out


def prompts() -> torch.Tensor:
    """Sixteen prompts."""
    return torch.randint(3, VOCABULARY, (ROWS, PROMPT), generator=torch.Generator().manual_seed(1))


def served(bank: Path, tasks: int, hold: str = "dense") -> Way:
    """The server's own batch, without HTTP."""
    mixed = randes_cli.attach(randes_cli.transformers.from_bank(bank), bank, hold=hold)
    lane = Generating(mixed, Sizes(rows=ROWS))

    def run() -> None:
        for row, ids in enumerate(prompts().tolist()):
            lane.waiting.append(
                Answer(
                    mixed.names[row % tasks],
                    ids,
                    lambda event: None,
                    MOST,
                    chooser=Chooser(Sampling(temperature=0), 0),
                    reader=TextReader(lambda ids: "", ids, []),
                )
            )
        while lane.busy:
            lane.step()

    name = f"`randes serve --hold {hold}`, {tasks} in the mix"
    return Way(name, sum(mixed.memory.values()), run)


def generate(model: Any, ids: torch.Tensor, **more: Any) -> None:
    """transformers' own loop."""
    mask = torch.ones_like(ids)
    model.generate(ids, attention_mask=mask, max_new_tokens=MOST, do_sample=False, **more)


def apart(bank: Path, tasks: int, names: Sequence[str]) -> Way:
    """A model of its own for each task, on the same processor."""
    models = [randes_cli.transformers.from_bank(bank, name) for name in names[:tasks]]
    size = sum(weight.nbytes for model in models for weight in model.parameters())

    def run() -> None:
        for number, model in enumerate(models):
            generate(model, prompts()[number::tasks])

    return Way(f"a process a model, {tasks}", size, run)


def swapped(bank: Path, tasks: int, names: Sequence[str]) -> Way:
    """One model that becomes each task in turn."""
    model = randes_cli.transformers.from_bank(bank, names[0])
    pool = randes_cli.Pool(bank, model, resident=False)

    def run() -> None:
        for number, name in enumerate(names[:tasks]):
            with pool.use(name) as current:
                generate(current, prompts()[number::tasks])

    return Way(f"swapped in, {tasks}", sum(w.nbytes for w in model.parameters()), run)


def mixed_peft(folder: Path, tasks: int) -> Way:
    """PEFT's mixed batch of adapters."""
    base = tf.LlamaForCausalLM.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base, folder / LORA[0], adapter_name=LORA[0])
    for name in LORA[1:tasks]:
        model.load_adapter(folder / name, adapter_name=name)
    model.eval()
    names = [LORA[row % tasks] for row in range(ROWS)]
    size = sum(weight.nbytes for weight in model.parameters())
    return Way(
        f"PEFT's mixed batch, {tasks}",
        size,
        lambda: generate(model, prompts(), adapter_names=names),
    )


def in_turns(ways: Sequence[Way], rounds: int) -> dict[str, float]:
    """Median tokens for each second of processor time."""
    taken: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways:
            start = time.process_time()
            way.run()
            if turn:
                taken[way.name].append(ROWS * MOST / (time.process_time() - start))
    return {name: median(values) for name, values in taken.items()}


def show(title: str, ways: Sequence[Way], rounds: int) -> None:
    """A table, in the first way's terms."""
    speeds = in_turns(ways, rounds)
    print(f"\n| {title} | tokens/s | memory, MB |\n|---|---|---|")
    for way in ways:
        print(f"| {way.name} | {speeds[way.name]:.0f} | {way.bytes / 1e6:.0f} |", flush=True)


@torch.inference_mode()
def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    tf.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder, given.layers, given.width)
        bank = make_bank(folder, TASKS, given.bits)
        ways = [served(bank, count) for count in (1, 8, 16)] + [served(bank, 16, "codes")]
        ways += [apart(bank, count, TASKS) for count in (1, 8, 16)]
        ways += [swapped(bank, count, TASKS) for count in (8, 16)]
        show("full fine-tunes", ways, given.rounds)
        del ways
        adapters = make_bank(folder, LORA, given.bits)
        ways = [
            served(adapters, 16),
            served(adapters, 16, "codes"),
            mixed_peft(folder, 8),
            mixed_peft(folder, 16),
        ]
        show("adapters of rank 8", ways, given.rounds)


if __name__ == "__main__":
    main()
