"""What the Hub's client raises, in randes' words: one sentence for each thing that can go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from randes_cli.errors import HubError, RandesError, UsageError, without_login
from randes_cli.files.local.disk import wrap_os_error

T = TypeVar("T")

#: Seconds between tries of what the client does not try again itself, and at the most.
_PAUSES, _LONGEST = (1.0, 2.0, 4.0), 120.0
#: What the client raises over an answer of another shape than a Hub's: a proxy's, say.
_STRANGE = (AttributeError, KeyError, TypeError)
_PASSING = (408, 429, 500, 502, 503, 504)
LOG_IN = "hf auth login, or HF_TOKEN"
_NOBODY = f"nobody is logged in here; log in first ({LOG_IN})"


def load_client() -> None:
    """Load the Hub's client. Raises UsageError where a variable that it reads is no number."""
    try:
        import huggingface_hub.hf_api  # noqa: F401
    except ValueError as error:
        raise UsageError(
            f"the Hub's client cannot be loaded ({_first_line(error)}); see the environment's "
            "variables that begin with HF_ and TQDM_"
        ) from error


def client_errors() -> tuple[type[Exception], ...]:
    """What the client raises on purpose, with the root of its HTTP library's own errors.

    That library is requests, httpx or httpx2, by the client's version.
    """
    from huggingface_hub.errors import HfHubHTTPError

    root = HfHubHTTPError.__mro__[1]
    address = getattr(import_module(root.__module__.split(".")[0]), "InvalidURL", root)
    return (root, address, OSError, ValueError, RuntimeError, *_STRANGE)


@contextmanager
def hub_errors(what: str, repo: str) -> Iterator[None]:
    """Run calls of the client; what they raise comes out as a RandesError that names `what`.

    Raises HubError; UsageError for a name that the Hub refuses; NoSpace and InputOutputError
    where the cache cannot be written.
    """
    load_client()
    try:
        yield
    except client_errors() as error:
        raise translate(error, what, repo) from error


def hub_call(call: Callable[[], T], what: str, repo: str) -> T:
    """What a call of the client returns; a busy or failing Hub is asked again, as it wishes.

    Raises as `hub_errors` does.
    """
    with hub_errors(what, repo):
        for pause in _PAUSES:
            try:
                return call()
            except client_errors() as error:
                found = _answer(error)
                if found is None and (pause > _PAUSES[0] or not _dropped(error)):
                    raise
                if found is not None and found.status_code not in _PASSING:
                    raise
                asked = "" if found is None else str(found.headers.get("retry-after", ""))
                time.sleep(min(float(asked), _LONGEST) if asked.isdigit() else pause)
        return call()


def _answer(error: BaseException) -> Any:
    """The Hub's answer that an error is about; None where there was none."""
    found = getattr(error, "response", None)
    cause = error.__cause__
    return found if found is not None or cause is None else _answer(cause)


def _dropped(error: BaseException) -> bool:
    """Whether a request had no (whole) answer, so that to ask again may help."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    ours = isinstance(error, (OfflineModeIsEnabled, ValueError, RuntimeError, *_STRANGE))
    return not ours and getattr(error, "filename", None) is None


def endpoint() -> str:
    """The address of the Hub as people may see it."""
    from huggingface_hub import constants

    return without_login(constants.ENDPOINT)


def translate(error: BaseException, what: str, repo: str) -> RandesError:
    """The sentence for one error of the client."""
    from huggingface_hub import errors

    if getattr(error, "response", None) is not None:
        return _refused(error, what, repo)
    cause = error.__cause__
    if cause is not None and isinstance(cause, client_errors()):
        return translate(cause, what, repo)
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{what}: not a name that the Hub takes ({_first_line(error)})")
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return not_cached(what)
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return wrap_os_error(error, error.filename, "downloading")
    return HubError(f"{what}: {_unanswered(error)}")


def _unanswered(error: BaseException) -> str:
    """What to say where there was no answer, or none of a Hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return _NOBODY
    if isinstance(error, _STRANGE):
        return f"{endpoint()} gave no answer of a Hub ({_first_line(error)})"
    return (
        f"the connection to {endpoint()} failed or was dropped ({_first_line(error)}); say it "
        "again when it is back: complete files are kept"
    )


def not_cached(what: str) -> HubError:
    """Offline, and the cache lacks it."""
    return HubError(
        f"{what}: neither here nor in the cache, and HF_HUB_OFFLINE is set; "
        "download it once while online"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _refused(error: Any, what: str, repo: str) -> HubError:
    """The sentence for an answer of the Hub that is not the thing asked for."""
    from huggingface_hub import errors, get_token

    here = endpoint()
    page = f"{here}/{repo}"
    nowhere = (
        f"not at {here}, or private and not open to your token ({LOG_IN}); "
        "nor is there such a path here"
    )
    kinds = {
        errors.GatedRepoError: (
            f"gated; accept its terms at {page} and log in with that account ({LOG_IN})"
        ),
        errors.RevisionNotFoundError: f"{repo} has no such branch, tag or commit",
        errors.EntryNotFoundError: f"{repo} has no such file at this revision",
        errors.DisabledRepoError: f"the Hub has disabled {repo}",
        errors.RepositoryNotFoundError: nowhere,
    }
    found = next((said for kind, said in kinds.items() if isinstance(error, kind)), None)
    statuses = {
        401: f"{here} refused your token; log in anew ({LOG_IN})" if get_token() else _NOBODY,
        403: f"your token has no right to do this; see the settings of {page}",
        404: nowhere,
        429: f"too many requests to {here}; wait {_wait(error)}, or log in ({LOG_IN}) for more",
    }
    status = error.response.status_code
    other = f"{here} answered {status} ({_first_line(error)})"
    return HubError(f"{what}: {found or statuses.get(status, other)}")


def _wait(error: Any) -> str:
    seconds = error.response.headers.get("retry-after", "")
    return f"{seconds} seconds" if seconds.isdigit() else "some minutes"
