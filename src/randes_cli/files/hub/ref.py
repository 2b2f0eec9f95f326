"""How a model on the Hub is named: ``org/name[@revision][:path]``, also after ``hf://``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from randes_cli.errors import MissingError, UsageError
from randes_cli.files.kinds import BANK_SUFFIX
from randes_cli.files.local.disk import system_errors
from randes_cli.files.nearest import meant_beside

SCHEME = "hf://"
#: A revision that can never mean anything else.
COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".st", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")
#: Ends of names that a text with a slash has when it names a file here.
_FILES = (*_WEIGHTS, BANK_SUFFIX, ".json", ".gguf", ".npz", ".zip", ".nemo", ".h5", ".onnx")
#: Hosts whose addresses people paste.
_HOSTS = ("huggingface.co", "hf.co")
_OTHER_KINDS = ("datasets", "spaces", "kernels", "buckets")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REF = re.compile(rf"({_PART}/{_PART})(?:@([^:@\s]+))?(?::([^\s].*))?")
#: Branches that the Hub makes by itself; the only ones whose names hold slashes in hf:// paths.
_SPECIAL = re.compile(r"(refs/(?:pr|convert)/[^/:]+)(?:/(.+))?")


@dataclass(frozen=True, slots=True)
class HubRef:
    """What a user named on the Hub; `path` is a file or folder of the repository, or empty."""

    repo: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f":{self.path}" if self.path else "")

    @property
    def name(self) -> str:
        """A name for a task that nobody named."""
        if self.path.endswith((*_WEIGHTS, BANK_SUFFIX)):
            return PurePosixPath(self.path).stem
        return PurePosixPath(self.path or self.repo).name


def parse_ref(text: str) -> HubRef | None:
    """Read ``org/name``, ``org/name@revision``, ``org/name:path`` or any of them with ``hf://``.

    None where the text names something here: a path that exists, or one that no model of the
    Hub is called by. Raises UsageError for what only the Hub could have but is no model, and
    MissingError for what lies in a folder that is here, but is not there.
    """
    if "://" in text and not text.startswith(SCHEME):
        page = _of_address(text)
        if page is None or is_here(text):
            return None
        text = page
    if not text.startswith(SCHEME):
        if is_here(text) or (":" not in text and text.endswith(_FILES)):
            return None
        if _REF.fullmatch(text) and _beside(text):
            raise MissingError(
                f"{text}: not found{meant_beside(Path(text))}; for a model of the Hub say "
                f"{SCHEME}{text}"
            )
        _refuse_other_kinds(text, text)
        found = _REF.fullmatch(text)
        return HubRef(found[1], found[2], _clean(found[3] or "", text)) if found else None
    rest = text[len(SCHEME) :].removeprefix("models/")
    _refuse_other_kinds(rest, text)
    found = _REF.fullmatch(rest if ":" in rest else _with_colon(rest))
    if not found:
        raise UsageError(f"{text}: not a model of the Hub; say hf://org/name[@revision][:path]")
    return HubRef(found[1], found[2], _clean(found[3] or "", text))


def _of_address(text: str) -> str | None:
    """``hf://…`` for a page of the Hub as a browser shows it; None for other addresses."""
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("?")[0].partition("#")[0].partition("/")
    if scheme not in ("http", "https") or host.removeprefix("www.") not in _HOSTS:
        return None
    parts = path.strip("/").removeprefix("models/").split("/")
    if len(parts) > 3 and parts[2] in ("tree", "blob", "resolve", "raw"):
        inside = "/".join(parts[4:])
        repo = "/".join(parts[:2])
        return f"{SCHEME}{repo}@{parts[3]}" + (f":{inside}" if inside else "")
    return SCHEME + "/".join(parts)


def is_bank_there(text: str) -> bool:
    """Whether a bank that was opened, by the name that it has since, is one on the Hub."""
    return bool(_REF.fullmatch(text)) and text.endswith(BANK_SUFFIX) and ":" in text


def is_here(text: str) -> bool:
    """Whether a path exists. Raises InputOutputError where the system does not say."""
    with system_errors(text, "looking for it"):
        return Path(text).exists()


def _beside(text: str) -> bool:
    """Whether a text that could be an id of the Hub names a folder that is here."""
    folder, slash, name = text.partition("/")
    return bool(slash and name) and Path(folder).is_dir()


def recorded_ref(source: str) -> HubRef | None:
    """The model of the Hub that a manifest's source is; it always names a whole commit."""
    found = _REF.fullmatch(source)
    if found is None or not COMMIT.fullmatch(found[2] or ""):
        return None
    return HubRef(found[1], found[2], found[3] or "")


def is_model_id(text: str) -> bool:
    """Whether a text could be the id of a model (and is not the name of a file)."""
    return bool(_REF.fullmatch(text)) and (":" in text or not text.endswith(_FILES))


def _refuse_other_kinds(rest: str, text: str) -> None:
    kind, *others = rest.split("/")
    if kind in _OTHER_KINDS and len(others) >= 2:
        raise UsageError(f"{text}: randes reads models of the Hub, not {kind}; say org/name")


def _with_colon(text: str) -> str:
    """The same with a colon before the path, as in the client's own org/name@revision/path."""
    parts = text.split("/", 2)
    if len(parts) < 3:
        return text
    owner, name, path = parts
    if "@" not in name:
        return f"{owner}/{name}:{path}"
    repo, revision = name.split("@", 1)
    special = _SPECIAL.fullmatch(f"{revision}/{path}")
    if special:
        return f"{owner}/{repo}@{special[1]}" + (f":{special[2]}" if special[2] else "")
    return f"{owner}/{repo}@{revision}:{path}"


def _clean(path: str, text: str) -> str:
    """A path inside a repository, without slashes at its ends."""
    path = path.strip("/")
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise UsageError(f"{text}: {path!r} is not a path inside a repository")
    return path
