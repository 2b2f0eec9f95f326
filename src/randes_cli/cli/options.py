"""Options that commands share; `words` has what becomes of them."""

from __future__ import annotations

from typing import Annotated, Any

from randes_cli.cli import complete
from randes_cli.cli.panels import (
    COMES_OUT,
    GOES_IN,
    MADE,
    RUNS,
    SPEAKS,
    argument,
    option,
    switch,
)
from randes_cli.errors import UsageError
from randes_cli.specs import DEVICES, ENGINES

Word = str | None
Words = list[str] | None
_TASK = ("--task", "-t")
OUTPUT = ("--output", "-o")


def output(panel: str | None, metavar: str, text: str) -> Any:
    """The option that names what is written."""
    return option(panel, metavar, text, *OUTPUT, callback=_a_file)


def _a_file(name: str | None) -> str | None:
    """Raises UsageError for the word that other tools take for standard output."""
    if name == "-":
        raise UsageError(
            "-o -: output appears whole or not at all, so it goes to a file, not to standard "
            "output; name one (./- for a file that is called so)"
        )
    return name


NewBank = Annotated[str, output(None, "BANK", "The bank to write.")]

BankName = Annotated[
    str, argument("BANK", "The bank: a file, an address or a Hub id.", complete.banks)
]
OwnBank = Annotated[
    str, argument("BANK", "The bank to change: a file, or an address.", complete.banks)
]
Tasks = Annotated[
    Words,
    option(None, "NAME", "A task (all by default); repeatable.", *_TASK, offer=complete.tasks),
]
NamedTasks = Annotated[
    Words,
    option(None, "NAME", "The same, as an option; repeatable.", *_TASK, offer=complete.tasks),
]
OneTask = Annotated[
    Word, option(None, "NAME", "The same, as an option.", *_TASK, offer=complete.tasks)
]
Json = Annotated[bool, switch(SPEAKS, "Print one JSON object on stdout.", "--json")]
Quiet = Annotated[
    bool,
    switch(
        SPEAKS, "No progress, no remarks; a command that writes prints nothing.", "--quiet", "-q"
    ),
]
Debug = Annotated[bool, switch(SPEAKS, "Show the traceback of an error.", "--debug")]
Full = Annotated[bool, switch(SPEAKS, "Show every row, column and note.", "--full")]
Force = Annotated[bool, switch(RUNS, "Replace what is there.", "--force")]
DryRun = Annotated[bool, switch(RUNS, "Only say what would be done.", "--dry-run")]
Threads = Annotated[
    int, option(RUNS, "N", "Worker threads (0: one per core).", min=0, show_default=False)
]
MaxMemory = Annotated[Word, option(RUNS, "SIZE", "Most memory for buffers, as 256MiB.")]
Device = Annotated[
    str,
    option(
        RUNS,
        "NAME",
        "Where to compute: auto (the CPU, which is faster for what a disk holds), cpu, cpu-torch, "
        "cuda or mps. Same bytes on all.",
        offer=complete.words_of(*DEVICES),
    ),
]
Engine = Annotated[
    str,
    option(
        RUNS,
        "NAME",
        "Who works: threads of this process, or ray: workers of a cluster, --threads each. Same "
        "bytes.",
        offer=complete.words_of(*ENGINES),
    ),
]
Address = Annotated[
    Word,
    option(
        RUNS,
        "auto|HOST",
        "The Ray cluster: the one that runs here, or HOST:PORT (default: this machine).",
    ),
]
Wait = Annotated[
    float, option(RUNS, "SECONDS", "How long to wait while another process edits the bank.")
]
MaxShardSize = Annotated[
    Word,
    option(
        MADE,
        "SIZE",
        "Write the bank as an index and, beside it, shards of at most this size, as 5GB (above 50 "
        "GB by itself).",
    ),
]
MergeAdapters = Annotated[
    bool,
    switch(
        GOES_IN,
        "Keep no LoRA adapters as adapters: with a base they become full models, base + "
        "scaling·B·A, and without one they are refused.",
        "--merge-adapters",
    ),
]
AllowPickle = Annotated[
    bool,
    switch(GOES_IN, "Read pickles (.bin, .pt …), weights only: no code runs.", "--allow-pickle"),
]
WeightsKey = Annotated[
    Word, option(GOES_IN, "KEY", "Where in a pickle the weights are, as model_ema.")
]
_CODE = "--trust-remote-code-files"
TrustCode = Annotated[bool, switch(GOES_IN, "Let Python files of a folder travel along.", _CODE)]
CodeOut = Annotated[bool, switch(COMES_OUT, "Write a folder's Python files, too.", _CODE)]
_ALONE = ("Weights alone: no config, no tokenizer.", "--safetensors-only")
SafetensorsOnly = Annotated[bool, switch(GOES_IN, *_ALONE)]
WeightsOut = Annotated[bool, switch(COMES_OUT, *_ALONE)]
BaseOption = Annotated[
    Word, option(GOES_IN, "PATH", "The base, where it lies outside and moved.", "--base")
]
Against = Annotated[
    Words,
    option(
        GOES_IN,
        "NAME=PATH",
        "An original checkpoint of a task to measure against; repeatable.",
        offer=complete.named,
    ),
]
Evaluation = Annotated[
    str,
    option(
        None,
        "CMD",
        "Prints a score, higher being better, for {checkpoint} and {task}: its last line is a "
        "number, NAME: number, or JSON.",
        "--evaluate",
    ),
]
Metric = Annotated[
    Word,
    option(
        None,
        "NAME",
        "Which number is the score, where the command prints JSON with several.",
    ),
]
