"""Writes the reference of docs/python.md from docstrings. `make docs` runs it; a test checks it.

What stands before the marker is written by hand.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import randes_cli

PAGE = Path(__file__).with_name("python.md")
#: What the package's own layers use of a class, and nobody else needs.
INNER = ("Bank.file", "Bank.run", "Bank.retrieval", "Bank.steady")
MARKER = "<!-- What follows is made by `make docs` from docstrings; do not edit. -->\n"


def signature(name: str, made: object) -> str:
    """As one would type it; a default that is an object shows as `...`."""
    text = str(inspect.signature(made))  # type: ignore[arg-type]
    text = re.sub(r"<[^<>]+>", "...", text).replace("randes_cli.", "")
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).replace("StrPath", "str | os.PathLike")
    parts = re.sub(r"^\((self|cls)(, )?", "(", text)
    if len(name) + len(parts) <= 88:
        return name + parts
    inner, _, end = parts[1:].rpartition(")")
    lines = "".join(f"    {part},\n" for part in _split(inner))
    return f"{name}(\n{lines}){end}"


def _split(text: str) -> list[str]:
    """Parameters, split at commas outside brackets."""
    made, depth = [""], 0
    for letter in text:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth:
            made.append("")
        else:
            made[-1] += letter
    return [part.strip() for part in made]


def words(made: object) -> str:
    """A docstring as Markdown: `Attributes:` becomes a list."""
    text = inspect.getdoc(made) or ""
    head, _, attributes = text.partition("Attributes:\n")
    items = re.sub(r"^    (\w+): ", r"- `\1`: ", attributes, flags=re.M)
    items = re.sub(r"^        ", "  ", items, flags=re.M)
    return (head + items).strip().replace("``", "`")


def entry(name: str, made: object) -> str:
    """One name's section."""
    kind = "class " if inspect.isclass(made) else ""
    shown = signature(name, made)
    return f"### {name}\n\n```text\n{kind}{shown}\n```\n\n{words(made)}\n"


def methods(made: type) -> list[str]:
    """A section for each public method and property of a class."""
    parts = []
    for name, value in vars(made).items():
        member = getattr(value, "__func__", value)
        if name.startswith("_") or f"{made.__name__}.{name}" in INNER:
            continue
        if isinstance(value, property):
            parts.append(f"### {made.__name__}.{name}\n\n{words(value)}\n")
        elif callable(member):
            shown = signature(f"{made.__name__}.{name}", member)
            parts.append(
                f"### {made.__name__}.{name}\n\n```text\n{shown}\n```\n\n{words(member)}\n"
            )
    return parts


def error_table(errors: dict[str, type]) -> str:
    """Each error, what it means, and the exit code of the command line."""
    rows = [
        f"| `{name}` | {words(made).splitlines()[0]} | {getattr(made, 'exit_code', '')} |"
        for name, made in errors.items()
    ]
    return "\n".join(["| error | when | exit code |", "|---|---|---|", *rows]) + "\n"


def reference() -> str:
    """All public names, by kind."""
    names = {name: getattr(randes_cli, name) for name in randes_cli.__all__}
    classes = {name: made for name, made in names.items() if inspect.isclass(made)}
    errors = {n: made for n, made in classes.items() if issubclass(made, Exception)}
    records = {n: made for n, made in classes.items() if is_dataclass(made)}
    options = {n: made for n, made in records.items() if n.endswith(("Options", "Input"))}
    options |= {"Transform": classes["Transform"]}
    reports = {n: made for n, made in records.items() if n not in options}
    rest = {n: made for n, made in classes.items() if n not in {**errors, **records, **options}}
    verbs = {name: made for name, made in names.items() if name not in classes}
    parts = [MARKER, "## Verbs\n", *(entry(name, made) for name, made in verbs.items())]
    for name, made in rest.items():
        parts += [f"## {name}\n", f"{words(made)}\n", *methods(made)]
    parts += ["## Options\n", *(entry(name, made) for name, made in options.items())]
    parts += ["## What verbs return\n", *(entry(name, made) for name, made in reports.items())]
    parts += ["## Errors\n", error_table(errors)]
    return "\n".join(parts)


def page() -> str:
    """The whole document."""
    return PAGE.read_text("utf-8").partition(MARKER)[0] + reference()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
