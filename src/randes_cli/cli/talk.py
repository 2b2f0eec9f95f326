"""How a command speaks: its progress, then its report, for people or for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from randes_cli.cli.output import Clock, note, print_json, print_lines, progress_bar

if TYPE_CHECKING:
    from rich.text import Text

    from randes_cli.workers import Progress

    #: What is shown, for a width.
    View = Callable[[int], Sequence[Text]]


class Talk:
    """What one command says, from its start on."""

    def __init__(self, *, json: bool, quiet: bool, dry_run: bool = False) -> None:
        self.json, self.quiet, self.dry_run = json, quiet, dry_run
        self._clock = Clock(json=json)

    def progress(self) -> AbstractContextManager[Progress]:
        """A progress callable while the work goes on."""
        return progress_bar(quiet=self.quiet)

    def tell(
        self,
        report: Any,
        view: View | None = None,
        *,
        read: int = 0,
        written: int = 0,
        before: Iterable[str] = (),
        after: Iterable[str] = (),
        wanted: bool = False,
        **more: Any,
    ) -> None:
        """Print a report: a JSON object with `more`, or a view between lines of talk.

        `read` and `written` are bytes; a dry run has written none. `wanted`: the view is what the
        command is for, and is shown however quiet it is to be.
        """
        written = 0 if self.dry_run else written
        if self.json:
            print_json(report, **more, **self._clock.facts(read, written))
            return
        for line in before:
            note(line, quiet=self.quiet)
        if view is not None:
            print_lines(view, quiet=self.quiet and not wanted)
        for line in after:
            note(line, quiet=self.quiet)
        if read or written:
            note(self._clock.sentence(read, written), quiet=self.quiet or self.dry_run)
