"""Options that decide the bytes of a new bank."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from randes_cli.cli.complete import words_of
from randes_cli.cli.panels import GOES_IN, MADE, argument, option, switch
from randes_cli.specs import PRESETS, Rest, Shuffle, Signs

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]

TWO_SIDED = Preset("two-sided")


class Where(str, Enum):
    """Where the base goes."""

    embed = "embed"
    reference = "reference"


Word = str | None
Base = Annotated[
    Word,
    argument("BASE", "The base model: a file, a folder or a Hub id; not needed with --adapters."),
]
Inputs = Annotated[
    list[str] | None,
    argument(
        "[NAME=]TASK[@GROUP]...",
        "Models fine-tuned from it, each with a name or named after its file.",
    ),
]
From = Annotated[
    Path | None,
    option(
        GOES_IN,
        "RECIPE",
        "A YAML or JSON file with base, tasks and options (inspect --recipe prints one); options "
        "here win over its own.",
        "--from",
    ),
]
Transforms = Annotated[
    Preset,
    option(
        MADE,
        "NAME",
        f"How deltas are made orthogonal before they are summed: {', '.join(PRESETS)}.",
    ),
]
Shuffles = Annotated[
    Shuffle | None,
    option(MADE, "NAME", "In place of the preset's shuffle: none, random or shift."),
]
SignChoice = Annotated[
    Signs | None,
    option(MADE, "NAME", "In place of the preset's signs: none, column, hankel or two-sided."),
]
Bits = Annotated[
    Word,
    option(
        MADE,
        "N",
        "Bits of a superposed element: 16 or 8; 4 to 1 are read-only. 1/4 is 1 bit on a quarter "
        "of the elements. By default 8 for a 16-bit base whose tasks share a group, else 16.",
        offer=words_of("16", "8", "4", "3", "2", "1", "1/2", "1/4", "1/8"),
    ),
]
Share = Annotated[
    Word,
    option(
        MADE,
        "1/M",
        "Superpose only 1/2, 1/4 or 1/8 of each matrix: as much smaller, and as much noisier.",
        offer=words_of("1/2", "1/4", "1/8"),
    ),
]
Groups = Annotated[
    int,
    option(MADE, "N", "Superpositions side by side: a task is disturbed by its own group alone."),
]
Fit = Annotated[
    Word,
    option(
        MADE,
        "SIZE",
        "Choose bits, groups and share: the best predicted within 500MB, or 1.1 times the base.",
    ),
]
Keep = Annotated[
    Word,
    option(
        MADE,
        "SHARE",
        "Choose them for the smallest bank predicted to keep 99% of the gain, say.",
    ),
]
Seed = Annotated[int, option(MADE, "N", "Bank seed; a task's is this plus its index.")]
Capacity = Annotated[
    int | None,
    option(
        MADE, "N", "Tasks that 8 bits must have room for (twice those packed, 16 at least).", min=1
    ),
]
Targets = Annotated[
    str,
    option(
        MADE,
        "WHICH",
        "What is transformed: all, attn, mlp or a regular expression.",
        offer=words_of("all", "attn", "mlp"),
    ),
]
Every = Annotated[int, option(MADE, "K", "Transform every k-th target layer only.")]
Others = Annotated[
    Rest,
    option(
        MADE,
        "NAME",
        "Tensors outside the targets: sum them as they are, or keep each task's own.",
    ),
]
Exact = Annotated[
    Word,
    option(MADE, "REGEX", "Keep tensors with such names exactly, for each task: ^head, say."),
]
Storage = Annotated[
    Where,
    option(
        MADE,
        "WHERE",
        "embed: keep the base inside the bank; reference: only refer to it.",
        "--base",
    ),
]
Adapters = Annotated[
    bool,
    switch(
        GOES_IN,
        "LoRA adapters stay adapters; without this, those that come with a base are merged into "
        "it. Where all arguments are adapters, none is the base.",
        "--adapters",
    ),
]
