"""randes serve"""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import note, print_json, say
from randes_cli.cli.panels import SPEAKS, option, switch
from randes_cli.errors import UsageError
from randes_cli.views.text import human

if TYPE_CHECKING:
    from randes_cli.server.service import Service

#: Panels of --help, beside those that commands share.
ASKS, COMPUTES, ROOM = "Who may ask", "Computing", "Room and time"
#: Bytes of a key and its file at the most.
_LONGEST_KEY = 2**16


Host = Annotated[str, option(ASKS, "ADDRESS", "Where to listen.")]
Port = Annotated[int, option(ASKS, "N", "0 takes any.", min=0, max=65535)]
ApiKey = Annotated[
    o.Word, option(ASKS, "KEY", "Clients must show it; whoever lists processes sees it, too.")
]
ApiKeyFile = Annotated[
    Path | None, option(ASKS, "PATH", "A file with the key (or set RANDES_API_KEY).")
]
AllowHost = Annotated[
    o.Words, option(ASKS, "NAME", "A name that the server is asked by; repeatable.")
]
AllowOrigin = Annotated[
    o.Words, option(ASKS, "URL", "A site whose pages may ask (CORS); repeatable.")
]
Task = Annotated[
    o.Words, option(COMPUTES, "NAME", "A task to serve (default: all); repeatable.", "--task", "-t")
]
Device = Annotated[str, option(COMPUTES, "NAME", "Where, as torch calls it.")]
Dtype = Annotated[
    o.Word, option(COMPUTES, "NAME", "Of the model, as bfloat16 (default: the base's).")
]
Hold = Annotated[
    str, option(COMPUTES, "HOW", "Superpositions as matrices (dense) or as stored (codes).")
]
Coefficient = Annotated[
    float | None, option(COMPUTES, "X", "λ in place of each task's own.", "--lambda")
]
Rows = Annotated[int, option(ROOM, "N", "Answers in one batch.", min=1)]
Cells = Annotated[int, option(ROOM, "N", "Tokens of keys and values in one batch.", min=64)]
Chunk = Annotated[int, option(ROOM, "N", "Tokens of prompts in one step.", min=1)]
Waiting = Annotated[int, option(ROOM, "N", "Answers that may wait; beyond, 429.", min=1)]
BodyLimit = Annotated[str, option(ROOM, "SIZE", "Largest request; beyond, 413.")]
Timeout = Annotated[
    float, option(ROOM, "SECONDS", "For a request to arrive, and a client to read.", min=0.1)
]
Drain = Annotated[float, option(ROOM, "SECONDS", "For answers to end in after SIGTERM.", min=0)]
LogPrompts = Annotated[bool, switch(SPEAKS, "Log requests whole.", "--log-prompts")]


def serve(
    bank: o.BankName,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    task: Task = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    hold: Hold = "dense",
    coefficient: Coefficient = None,
    base: o.BaseOption = None,
    rows: Rows = 32,
    cells: Cells = 131072,
    chunk: Chunk = 2048,
    waiting: Waiting = 512,
    body_limit: BodyLimit = "4MiB",
    timeout: Timeout = 30.0,
    drain: Drain = 60.0,
    log_prompts: LogPrompts = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Serve every task of a bank behind one address, with OpenAI's interface and a page."""
    _require_extra()
    from randes_cli.limits import parse_size
    from randes_cli.server.edition import Opening
    from randes_cli.server.generating import Sizes
    from randes_cli.server.guard import Limits
    from randes_cli.server.service import Service, Serving, hosts_of

    key = _key(api_key, api_key_file)
    _log(quiet=quiet)
    sizes = Sizes(rows, cells, chunk)
    tasks = tuple(task) if task else None
    opening = Opening(bank, base, tasks, device, dtype, hold, coefficient, sizes)
    names = hosts_of(host, tuple(allow_host or ()))
    limits = Limits(key, parse_size(body_limit), timeout, names, tuple(allow_origin or ()))
    service = Service(opening, Serving(host, port, waiting, drain, log_prompts, limits=limits))
    _tell(service, json=json, quiet=quiet)
    sys.stdout.flush()
    service.run()


def _tell(service: Service, *, json: bool, quiet: bool) -> None:
    edition = service.engine.current
    memory = edition.memory
    if json:
        print_json({"address": service.address, "models": list(edition.models), "bytes": memory})
    else:
        say(f"{service.address} serves {', '.join(edition.models)}", quiet=quiet)
        sizes = f"{human(memory['model'])} of model, {human(memory['tasks'])} of tasks"
        note(f"in memory: {sizes}", quiet=quiet)
    for name, why in edition.unserved.items():
        note(f"{name} is not served: {why}", quiet=quiet)


def _require_extra() -> None:
    """Raise UsageError with what to install."""
    needed = ("fastapi", "jinja2", "prometheus_client", "transformers", "uvicorn")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"serve needs {', '.join(missing)}: pip install 'randes-cli[serve]'")


def _key(given: str | None, file: Path | None) -> bytes | None:
    """The key that clients must show: of the command line, a file, or the environment."""
    from randes_cli.files.local.disk import read_beginning, wrap_os_error

    if given is not None and file is not None:
        raise UsageError("say --api-key or --api-key-file, not both")
    text = os.environ.get("RANDES_API_KEY") if given is None else given
    if file is not None:
        try:
            text = read_beginning(file, _LONGEST_KEY).decode()
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError):
                raise wrap_os_error(error, file, "reading") from error
            raise UsageError(f"{file}: is no text") from None
    if text is None:
        return None
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("an API key is one word of printable ASCII characters")
    return text.encode()


def _log(*, quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("randes.serve")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
