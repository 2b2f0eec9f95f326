"""The way of what is unpacked: it stays where it is written, or goes on into a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_space, check_target
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.passing import passing_folder
from randes_cli.files.stores.store import files_in, look_up
from randes_cli.files.upload import check_writable, upload
from randes_cli.workers import Progress


@dataclass(frozen=True)
class Way:
    """From `root` on this machine to `there`; None: what is written at `root` stays there."""

    root: Path | None
    there: RemotePath | None = None

    def of(self, path: Path) -> Place:
        """Where a file that is written at `path` is in the end."""
        if self.there is None or self.root is None:
            return path
        made = self.there
        for part in path.relative_to(self.root).parts:
            made = made / part
        return made

    def siblings(self, path: Path) -> Sequence[str]:
        """Names of the files in the folder that a file goes to."""
        folder = self.of(path).parent
        if isinstance(folder, RemotePath):
            return list(files_in(folder))
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else ()

    def check(self, path: Path, *, force: bool) -> None:
        """Refuse a place that is taken (unless `force`), or is none for a file."""
        place = self.of(path)
        if isinstance(place, RemotePath) or os.path.exists(place.parent):
            check_target(place, force=force)

    def check_space(self, sizes: Sequence[int]) -> None:
        """Raise NoSpace where tasks of these bytes have no room; in a store one goes at a time."""
        if self.there is not None:
            check_space(self.there, max(sizes, default=0))
            return
        root = (self.root or Path()).absolute()
        folder = next((p for p in (root, *root.parents) if p.is_dir()), Path())
        check_space(folder, sum(sizes))

    def send(self, files: Sequence[Path], *, force: bool, progress: Progress) -> None:
        """Have written files go where they belong: in this order, or none that is new."""
        total, new = sum(path.stat().st_size for path in files), list[RemotePath]()
        try:
            for path in files:
                place = self.of(path)
                if isinstance(place, RemotePath):
                    new += [] if force and look_up(place) is not None else [place]
                    upload(path, place, force=force, progress=progress, total=total)
                    path.unlink()
        except UsageError:  # the last one is there meanwhile, and is another's
            _take_back(new[:-1])
            raise
        except BaseException:
            _take_back(new)
            raise

    def absolute(self) -> Way:
        """The same, whatever folder somebody is in."""
        return Way(self.root and self.root.absolute(), self.there)

    @contextlib.contextmanager
    def anew(self) -> Iterator[Way]:
        """The same way from another machine, which has a folder of its own for it."""
        with way_out(self.there or self.root) as made:
            yield made


def _take_back(sent: Sequence[RemotePath]) -> None:
    from randes_cli.files.bank.stored_shards import prune_stored

    prune_stored(sent)


@contextlib.contextmanager
def way_out(out: Place | None) -> Iterator[Way]:
    """The way to what the user named (None: here). Raises UsageError for what is no object."""
    if not isinstance(out, RemotePath):
        yield Way(out)
        return
    check_writable(out)
    if out.name in ("", ".", ".."):
        raise UsageError(f"{out}: name a file or folder in it")
    with passing_folder() as here:
        yield Way(here / out.name, out)
