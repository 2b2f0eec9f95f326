"""The console script, and the one boundary where errors become a line and an exit code.

What this module imports runs before a signal is handled: it is next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys

from randes_cli.interrupts import Stopped, end, install, received, stoppable, unstoppable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from randes_cli.errors import RandesError

#: What a shell reports of a program that SIGPIPE ended.
_CLOSED_PIPE = 141
#: Bytes of address space without which NumPy cannot be loaded.
_LEAST_MEMORY = 3 * 2**26


def _say(text: str) -> None:
    """Print an error's line; where nobody can read it, the exit code tells."""
    with contextlib.suppress(OSError, ValueError):
        print(_for_people(f"randes: {' '.join(text.split())}"), file=sys.stderr)


def _for_people(text: str) -> str:
    """A line as the terminal that it goes to has room for it, where there is memory for that."""
    try:
        from randes_cli.cli.output import broken

        return broken(text)
    except (MemoryError, ImportError, OSError):
        return text


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        _ask_for_memory()
        from randes_cli.cli.app import call

        code = call(arguments)
        sys.stdout.flush()
        return code
    except (BrokenPipeError, SystemExit):  # rich and click turn the first into the second
        return _CLOSED_PIPE
    except Exception as error:
        if received():  # it is the reason, whatever it was made into on its way
            return 128 + received()
        if "--debug" in arguments:
            import traceback

            from randes_cli.errors import without_login

            print(without_login(traceback.format_exc()), end="", file=sys.stderr)
        return _explain(error)


def _ask_for_memory() -> None:
    """Raise OSError where NumPy's BLAS would end the process for want of memory."""
    import mmap

    if hasattr(mmap, "MAP_PRIVATE"):  # not on Windows, nor has it such limits
        mmap.mmap(-1, _LEAST_MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _explain(error: Exception) -> int:
    """Say what went wrong, and return its exit code."""
    try:
        found = _as_ours(error)
    except (MemoryError, ImportError, OSError):  # even for that there was too little
        _say("not enough memory, or too many open files")
        return 71
    if found is not None:
        _say(f"the working folder is gone: {found}" if _is_nowhere() else str(found))
        return found.exit_code
    what = f"{type(error).__name__}: {error}"
    _say(f"internal error: {ascii(what)[1:-1]} (--debug shows where; please report it)")
    return 70


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _as_ours(error: Exception) -> RandesError | None:
    """An error that nobody wrapped as one of ours; None where there should not have been one."""
    from randes_cli.errors import OutOfResources, RandesError

    if isinstance(error, RandesError):
        return error
    if isinstance(error, MemoryError):
        said = f": {error}" if str(error) else ""
        return OutOfResources(f"not enough memory{said}; fewer --threads or less --max-memory help")
    if isinstance(error, (ImportError, SystemError)):  # the second: of a library without memory
        return OutOfResources(f"cannot be loaded (memory, or the installation): {error}")
    if isinstance(error, OSError):
        from randes_cli.files.local.disk import wrap_os_error

        if error.filename:
            return wrap_os_error(error, ascii(str(error.filename))[1:-1], "using it")
        # The work is done, and committed, before anything of it is printed.
        lost = "what was to be printed is lost"
        return wrap_os_error(error, "standard output", "printing", so=lost)
    return None


def _open_standard_files() -> None:
    """Have files 0, 1 and 2 open: a bank opened under such a number would get what is printed.

    What cannot be printed in the terminal's encoding is shown escaped.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for good
        with contextlib.suppress(AttributeError, OSError, ValueError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _flush(code: int) -> int:
    """Flush what was printed; what nobody can read goes nowhere."""
    for stream, failed in ((sys.stdout, _CLOSED_PIPE), (sys.stderr, 0)):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or failed
    return code


@stoppable
def _work() -> int:
    """All that a signal may end: the command, and what waits until somebody reads it."""
    import gc

    from randes_cli.cli import environment

    environment.prepare()
    # Headers and manifests of 100,000 tensors are millions of objects that stay: looking through
    # them for garbage every 700 would double the time that opening a bank takes.
    gc.set_threshold(2_000_000, 20, 50)
    return _flush(run(sys.argv[1:]))


@unstoppable
def main() -> NoReturn:
    install()
    code = 70
    with contextlib.suppress(Stopped):
        _open_standard_files()
        code = _work()
    end(code)
