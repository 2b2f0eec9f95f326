"""Options that commands share; `words` has what becomes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from randes_cli.cli import complete
from randes_cli.cli.panels import COMES_OUT, GOES_IN, MADE, RUNS, SPEAKS
from randes_cli.specs import DEVICES, ENGINES

BankName = Annotated[
    str,
    typer.Argument(
        metavar="BANK",
        help="The bank: a file, an address or a Hub id.",
        show_default=False,
        autocompletion=complete.banks,
    ),
]
OwnBank = Annotated[
    str,
    typer.Argument(
        metavar="BANK",
        help="The bank to change: a file, or an address.",
        show_default=False,
        autocompletion=complete.banks,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        metavar="NAME",
        help="A task (all by default); repeatable.",
        show_default=False,
        autocompletion=complete.tasks,
    ),
]
NamedTasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        metavar="NAME",
        help="The same, as an option; repeatable.",
        show_default=False,
        autocompletion=complete.tasks,
    ),
]
OneTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="NAME",
        help="The same, as an option.",
        show_default=False,
        autocompletion=complete.tasks,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=SPEAKS),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress, no talk; what writes says nothing.",
        rich_help_panel=SPEAKS,
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=SPEAKS),
]
Full = Annotated[
    bool,
    typer.Option("--full", help="Show every row, column and note.", rich_help_panel=SPEAKS),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace what is there.", rich_help_panel=RUNS)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be done.", rich_help_panel=RUNS)
]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Worker threads (0: one per core).",
        show_default=False,
        rich_help_panel=RUNS,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Most memory for buffers, as 256MiB.",
        show_default=False,
        rich_help_panel=RUNS,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to compute: auto (the CPU, which is faster for what a disk holds), cpu, "
        "cpu-torch, cuda or mps. Same bytes on all.",
        rich_help_panel=RUNS,
        autocompletion=complete.words_of(*DEVICES),
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Who works: threads of this process, or ray: workers of a cluster, --threads each. "
        "Same bytes.",
        rich_help_panel=RUNS,
        autocompletion=complete.words_of(*ENGINES),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="auto|HOST",
        help="The Ray cluster: the one that runs here, or HOST:PORT (default: this machine).",
        show_default=False,
        rich_help_panel=RUNS,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="How long to wait while another process edits the bank.",
        rich_help_panel=RUNS,
    ),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Write the bank as an index and shards beside it, of at most so many bytes, as 5GB "
        "(banks above 50 GB are anyway).",
        show_default=False,
        rich_help_panel=MADE,
    ),
]
MergeAdapters = Annotated[
    bool,
    typer.Option(
        "--merge-adapters",
        help="LoRA adapters become full models, base + scaling·B·A (as they do with a base).",
        rich_help_panel=GOES_IN,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read pickles (.bin, .pt …), weights only: no code runs.",
        rich_help_panel=GOES_IN,
    ),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        metavar="KEY",
        help="Where in a pickle the weights are, as model_ema.",
        show_default=False,
        rich_help_panel=GOES_IN,
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code-files",
        help="Let Python files of a folder travel along.",
        rich_help_panel=GOES_IN,
    ),
]
SafetensorsOnly = Annotated[
    bool,
    typer.Option(
        "--safetensors-only",
        help="Weights alone: no config, no tokenizer.",
        rich_help_panel=GOES_IN,
    ),
]
CodeOut = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code-files",
        help="Write a folder's Python files, too.",
        rich_help_panel=COMES_OUT,
    ),
]
WeightsOut = Annotated[
    bool,
    typer.Option(
        "--safetensors-only",
        help="Weights alone: no config, no tokenizer.",
        rich_help_panel=COMES_OUT,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="The base, where it lies outside and moved.",
        show_default=False,
        rich_help_panel=GOES_IN,
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=PATH",
        help="An original checkpoint of a task to measure against; repeatable.",
        show_default=False,
        rich_help_panel=GOES_IN,
        autocompletion=complete.named,
    ),
]
Evaluation = Annotated[
    str,
    typer.Option(
        "--evaluate",
        metavar="CMD",
        help="Prints a score, higher being better, for {checkpoint} and {task}: its last line is "
        "a number, NAME: number, or JSON.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Which number is the score, where the command prints JSON with several.",
        show_default=False,
    ),
]
