"""Options that decide the bytes of a new bank."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from randes_cli.cli.complete import words_of
from randes_cli.cli.panels import GOES_IN, MADE
from randes_cli.specs import PRESETS, Rest, Shuffle, Signs

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]

TWO_SIDED = Preset("two-sided")


class Where(str, Enum):
    """Where the base goes."""

    embed = "embed"
    reference = "reference"


Base = Annotated[
    str | None,
    typer.Argument(
        metavar="BASE",
        help="The base model: a file, a folder or a Hub id; not needed with --adapters.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]TASK[@GROUP]...",
        help="Models fine-tuned from it, each with a name or named after its file.",
        show_default=False,
    ),
]
Out = Annotated[
    str,
    typer.Option("--output", "-o", metavar="BANK", help="The bank to write.", show_default=False),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RECIPE",
        help="A YAML or JSON file with base, tasks and options (inspect --recipe prints one); "
        "options here win over its own.",
        show_default=False,
        rich_help_panel=GOES_IN,
    ),
]
Transforms = Annotated[
    Preset,
    typer.Option(
        metavar="NAME",
        help=f"How deltas are made orthogonal before they are summed: {', '.join(PRESETS)}.",
        rich_help_panel=MADE,
    ),
]
Shuffles = Annotated[
    Shuffle | None,
    typer.Option(
        metavar="NAME",
        help="In place of the preset's shuffle: none, random or shift.",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
SignChoice = Annotated[
    Signs | None,
    typer.Option(
        metavar="NAME",
        help="In place of the preset's signs: none, column, hankel or two-sided.",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
Bits = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Bits of a superposed element: 16 or 8; 4 to 1 are read-only. 1/4 is 1 bit on a "
        "quarter of the elements. As usual 8 for a 16-bit base whose tasks share a group, else 16.",
        show_default=False,
        rich_help_panel=MADE,
        autocompletion=words_of("16", "8", "4", "3", "2", "1", "1/2", "1/4", "1/8"),
    ),
]
Share = Annotated[
    str | None,
    typer.Option(
        metavar="1/M",
        help="Superpose only 1/2, 1/4 or 1/8 of each matrix: as much smaller, and as much noisier.",
        show_default=False,
        rich_help_panel=MADE,
        autocompletion=words_of("1/2", "1/4", "1/8"),
    ),
]
Groups = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Superpositions side by side: tasks disturb those of their own alone.",
        rich_help_panel=MADE,
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Choose bits, groups and share: the best predicted within 500MB, or 1.1 times the "
        "base.",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Choose them for the smallest bank predicted to keep 99% of the gain, say.",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N", help="Bank seed; a task's is this plus its index.", rich_help_panel=MADE
    ),
]
Capacity = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tasks that 8 bits must have room for (twice those packed, 16 at least).",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
Targets = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="What is transformed: all, attn, mlp or a regular expression.",
        rich_help_panel=MADE,
        autocompletion=words_of("all", "attn", "mlp"),
    ),
]
Every = Annotated[
    int,
    typer.Option(metavar="K", help="Transform every k-th target layer only.", rich_help_panel=MADE),
]
Others = Annotated[
    Rest,
    typer.Option(
        metavar="NAME",
        help="Tensors outside the targets: sum them as they are, or keep each task's own.",
        rich_help_panel=MADE,
    ),
]
Exact = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Keep tensors with such names exactly, for each task: ^head, say.",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
Storage = Annotated[
    Where,
    typer.Option(
        "--base",
        metavar="WHERE",
        help="embed: keep the base inside the bank; reference: only refer to it.",
        rich_help_panel=MADE,
    ),
]
Adapters = Annotated[
    bool,
    typer.Option(
        "--adapters",
        help="LoRA adapters stay adapters (with a base they are merged into it else). Of "
        "arguments that are all adapters none is the base.",
        rich_help_panel=GOES_IN,
    ),
]
