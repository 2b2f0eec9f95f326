"""Takes up a bank that `add`, `remove` or a new file replaced."""

from __future__ import annotations

import logging
import threading
import time
from math import inf
from pathlib import Path

from randes_cli.errors import InputOutputError, NoSpace, OutOfResources, RandesError
from randes_cli.server.edition import Opening, open_edition
from randes_cli.server.engine import Engine

log = logging.getLogger("randes.serve")
#: Seconds until a bank is tried again that the system did not let be opened.
_LATER = 30.0
#: What `state_of` tells.
State = tuple[int, ...] | None


class Watch:
    """Looks at a bank's file, and gives the engine a new edition when it is another.

    Attributes:
        seen: the state of the file that the engine's edition was opened from.
        trouble: why the file that is there now was not taken up, or empty.
        taken: how many editions were.
    """

    def __init__(
        self, engine: Engine, opening: Opening, seen: State, *, every: float = 1.0
    ) -> None:
        self._engine, self._opening, self._every = engine, opening, every
        self.trouble, self.taken = "", 1
        self._seen, self._again = seen, inf
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="randes-watch", daemon=True)

    def start(self) -> None:
        """Begin to look; a bank on the Hub is not looked at."""
        if self._seen is not None:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; an edition that is being opened is waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()

    def look(self) -> None:
        """Take up the file if it is another than before and can be served; else say why not.

        One that the system had no files, memory or room for is tried again.
        """
        state = state_of(self._opening.bank)
        began = time.monotonic()
        if state is None or (state == self._seen and began < self._again):
            return
        self._seen, self._again = state, inf
        try:
            edition = open_edition(self._opening, self._engine.current)
        except RandesError as error:
            if isinstance(error, (InputOutputError, NoSpace, OutOfResources)):
                self._again = began + _LATER
            self._refuse(str(error))
        except Exception as error:
            log.exception("a new bank could not be opened")
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self._engine.current = edition
            self.trouble, self.taken = "", self.taken + 1
            log.info(
                "took up the new bank with %d models in %.1f s",
                len(edition.models),
                time.monotonic() - began,
            )

    def _refuse(self, why: str) -> None:
        self.trouble = why
        log.error("the new bank is not served, the one before is: %s", why)


def state_of(path: str) -> State:
    """What changes when a file is replaced or written; None where there is no file."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
