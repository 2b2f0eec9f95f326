"""randes serve"""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import human, note, print_json, say


def serve(
    bank: o.BankName,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any.")] = 8000,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="A task to serve (default: all); repeatable.", show_default=False
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Clients must show it. Others on this machine see it in ps: a file is better.",
            show_default=False,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key (or set RANDES_API_KEY).", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute, as torch calls it.")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the model, as bfloat16 (default: the base's).", show_default=False),
    ] = None,
    hold: Annotated[
        str, typer.Option(help="Superpositions as matrices (dense) or as stored (codes).")
    ] = "dense",
    coefficient: Annotated[
        float | None,
        typer.Option("--lambda", help="λ in place of each task's own.", show_default=False),
    ] = None,
    base: o.BaseOption = None,
    rows: Annotated[int, typer.Option(min=1, help="Answers in one batch.")] = 32,
    cells: Annotated[
        int, typer.Option(min=64, help="Tokens of keys and values in one batch.")
    ] = 131072,
    chunk: Annotated[int, typer.Option(min=1, help="Tokens of prompts in one step.")] = 2048,
    waiting: Annotated[int, typer.Option(min=1, help="Answers that may wait; beyond, 429.")] = 512,
    body_limit: Annotated[str, typer.Option(help="Largest request; beyond, 413.")] = "4MiB",
    timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds for a request to arrive, and for a client to read."),
    ] = 30.0,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that answers have to end after SIGTERM.")
    ] = 60.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that clients may ask for; repeatable.", show_default=False),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may ask (CORS); repeatable.", show_default=False),
    ] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Log requests whole.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Serve every task of a bank behind one address, with OpenAI's interface and a page."""
    _require_extra()
    from randes_cli.files.writer import parse_size
    from randes_cli.server.edition import Opening
    from randes_cli.server.generating import Sizes
    from randes_cli.server.guard import Limits
    from randes_cli.server.service import Service, Serving, hosts_of

    key = _key(api_key, api_key_file)
    _log(quiet=quiet)

    service = Service(
        Opening(
            bank,
            base,
            tuple(task) if task else None,
            device,
            dtype,
            hold,
            coefficient,
            Sizes(rows, cells, chunk),
        ),
        Serving(
            host,
            port,
            waiting,
            drain,
            log_prompts,
            limits=Limits(
                key,
                parse_size(body_limit),
                timeout,
                hosts_of(host, tuple(allow_host or ())),
                tuple(allow_origin or ()),
            ),
        ),
    )
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
    sys.stdout.flush()
    service.run()


def _require_extra() -> None:
    """Raise UsageError with what to install."""
    from randes_cli.errors import UsageError

    needed = ("fastapi", "jinja2", "prometheus_client", "transformers", "uvicorn")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"serve needs {', '.join(missing)}: pip install 'randes-cli[serve]'")


def _key(given: str | None, file: Path | None) -> bytes | None:
    """The key that clients must show: of the command line, a file, or the environment."""
    from randes_cli.errors import UsageError
    from randes_cli.files.atomic import wrap_os_error

    if given is not None and file is not None:
        raise UsageError("say --api-key or --api-key-file, not both")
    text = os.environ.get("RANDES_API_KEY") if given is None else given
    if file is not None:
        try:
            text = file.read_text("utf-8")
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
    """What the server tells, a line each, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("randes.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if quiet or name == "uvicorn" else logging.INFO)
