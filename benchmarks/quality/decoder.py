"""The decoder bed: a small GPT-2 on bytes, fine-tuned whole for seven domains (paper, Table 6)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from beds import CACHE, TEST, VALIDATION, Bed, StateDict, load, save
from decoder_data import DOMAINS, EIGHT, RUN, WINDOW, split, windows
from torch import Tensor, nn
from torch.nn import functional
from training import Recipe, fit

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PRE_TRAINING = Recipe(steps=450, rate=2e-3, batch=8, decay=0.01)
#: The base goes on, on a little of everything, as a language model that has seen the web.
GENERALISING = Recipe(steps=1600, rate=2e-3, batch=16, decay=0.01, seed=2, half=True)
FINE_TUNING = Recipe(steps=200, rate=2e-4, batch=16, seed=1, half=True)
FAR_FINE_TUNING = Recipe(steps=110, rate=1e-3, batch=8, seed=1)
#: Windows of 96 bytes from each part of a domain's held-out text, by bed.
HELD_OUT_WINDOWS = {
    "decoder": {VALIDATION: 24, TEST: 64},
    "decoder-far": {VALIDATION: 16, TEST: 40},
    "decoder-medium": {VALIDATION: 24, TEST: 64},
    "decoder-large": {VALIDATION: 24, TEST: 64},
}


@dataclass(frozen=True)
class Size:
    """The sizes of a GPT-2 with a byte for a token."""

    width: int
    layers: int
    heads: int


SMALL = Size(192, 6, 6)
#: 6.4 million parameters, and 25.4.
MEDIUM = Size(256, 8, 8)
LARGE = Size(512, 8, 8)


def new_model(size: Size = SMALL) -> Any:
    """GPT-2 with 2.7 million parameters, or of another size."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=256,
        n_positions=WINDOW,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The weights once each: the output layer is the embedding."""
    return {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


def _restore(model: nn.Module, state: StateDict) -> None:
    model.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})


def _loss(model: Any, domain: str, recipe: Recipe) -> Any:
    generator = torch.Generator().manual_seed(recipe.seed)
    train = split(domain)[0]

    def loss(_: int) -> Tensor:
        batch = windows(train, recipe.batch, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
            scores = model(batch[:, :-1]).logits
        return functional.cross_entropy(scores.float().flatten(0, 1), batch[:, 1:].flatten())

    return loss


def train(domain: str, start: Path | None, recipe: Recipe, path: Path, size: Size) -> None:
    """Train a base from nothing, or fine-tune all of one."""
    torch.manual_seed(recipe.seed)
    model = new_model(size).train()
    if recipe.half:
        model.set_attn_implementation("eager")  # a processor's fused one is slow in bfloat16
    if start is not None:
        _restore(model, load(start))
    fit(model, _loss(model, domain, recipe), recipe)
    save(_state(model), path)


@cache
def _evaluator(size: Size) -> Any:
    return new_model(size).eval()


@cache
def _held_out(bed_name: str, domain: str, part: str) -> Tensor:
    generator = torch.Generator().manual_seed(1 if part == VALIDATION else 2)
    runs = split(domain)[1].view(-1, RUN)
    own = runs[::2] if part == VALIDATION else runs[1::2]
    return windows(own.reshape(-1), HELD_OUT_WINDOWS[bed_name][part], generator)


def _evaluate(bed_name: str, size: Size, state: StateDict, domain: str, part: str) -> float:
    """The share of next bytes that the model ranks first."""
    model = _evaluator(size)
    _restore(model, state)
    right = []
    with torch.inference_mode():
        for batch in _held_out(bed_name, domain, part).split(40):
            right.append(model(batch[:, :-1]).logits.argmax(dim=-1) == batch[:, 1:])
    return float(torch.cat(right).float().mean())


@dataclass(frozen=True)
class Way:
    """How a bed's models come about: what each is trained on, how long, and how large it is."""

    tuning: Recipe
    broad: str = ""
    first: Recipe = PRE_TRAINING
    domains: Mapping[str, object] = field(default_factory=lambda: DOMAINS)
    size: Size = SMALL


def _bed(name: str, title: str, story: str, way: Way) -> Bed:
    """Train what the cache lacks."""
    folder = CACHE / name
    first, base = folder / "first.safetensors", folder / "base.safetensors"
    tasks = {domain: folder / f"{domain}.safetensors" for domain in way.domains}
    if not first.exists():
        train("general", None, way.first, first, way.size)
    if not base.exists() and way.broad:
        train(way.broad, first, GENERALISING, base, way.size)
    elif not base.exists():
        save(load(first), base)
    for domain, path in tasks.items():
        if not path.exists():
            train(domain, base, way.tuning, path, way.size)
            print(f"{name}: trained {domain}", flush=True)
    return Bed(name, title, base, tasks, partial(_evaluate, name, way.size), story)


def bed() -> Bed:
    """Fine-tunes of a base that has seen a little of every domain."""
    return _bed(
        "decoder",
        "Byte decoder, seven domains",
        "A GPT-2 of 2.7M parameters whose tokens are bytes, trained on the standard library's "
        "sources and package descriptions and then on a little of everything, and fine-tuned "
        "whole, at a tenth of the rate, for seven domains: licences, C++ headers, type stubs, "
        "pronunciations, Unicode names, emoji names in four languages, and tables of numbers. "
        "The score is the share of next bytes that the model ranks first; fine-tuning raises it "
        "by 1 to 21 points, and a delta's matrices have about a twentieth of the base's length.",
        Way(FINE_TUNING, "everything"),
    )


def far_bed() -> Bed:
    """Fine-tunes that have gone far from a base that knew none of the domains."""
    return _bed(
        "decoder-far",
        "Byte decoder, far from its base",
        "The same decoder whose base has seen only Python and English, and that briefly, "
        "fine-tuned for the same seven domains at five times the rate: the base is of little use "
        "to any task, and a delta's matrices have a quarter to three eighths of its length. Here "
        "superposition has it hardest.",
        Way(FAR_FINE_TUNING),
    )


def medium_bed() -> Bed:
    """More than twice the parameters and eight domains: half an hour of a processor."""
    return _bed(
        "decoder-medium",
        "Byte decoder of 6.4M parameters, eight domains",
        "A GPT-2 of 6.4M parameters that was trained and fine-tuned by the same recipes for the "
        "same domains and an eighth, manual pages in Czech, Danish, German, Spanish and French. "
        "Fine-tuning raises its scores by 2 to 19 points, and a delta's matrices have 5 to 7 % of "
        "the base's length. One seed.",
        Way(FINE_TUNING, "of-eight", replace(PRE_TRAINING, half=True), EIGHT, MEDIUM),
    )


def large_bed() -> Bed:
    """Nine times the parameters, for those who have an hour of a processor."""
    return _bed(
        "decoder-large",
        "Byte decoder of 25M parameters",
        "The same domains, recipes and score for a GPT-2 of 25.4M parameters.",
        Way(FINE_TUNING, "everything", size=LARGE),
    )
