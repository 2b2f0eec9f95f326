"""Libraries' own loaders, which find tensors of a bank where they look for files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file

from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Lazy, Whole


class Given(NamedTuple):
    """What lies at a place instead of a file of weights."""

    state: Mapping[str, Lazy]
    whole: Whole


#: Who builds models. Libraries change their own functions and torch's default dtype meanwhile, so
#: that models that were loaded by several threads at once came out untied or on the meta device.
BUILDING = threading.RLock()


class Redirection:
    """One function of a library, replaced for as long as something is given here.

    Libraries pass a path to their loaders and nothing else that could hold weights. All other
    paths they load as ever.
    """

    def __init__(self, replace: Callable[[], Callable[[], object]]) -> None:
        """`replace` puts the function in place and returns what undoes it."""
        self._replace = replace
        self._given: dict[Path, Given] = {}

    def at(self, path: object) -> Given | None:
        """What is given at a path, if anything."""
        return self._given.get(Path(str(path)).resolve()) if path else None

    @contextmanager
    def giving(self, places: Mapping[Path, Given]) -> Iterator[None]:
        """Give for the time of the block, one block after another."""
        with BUILDING:
            self._given = {place.resolve(): given for place, given in places.items()}
            undo = self._replace()
            try:
                yield
            finally:
                self._given = {}
                undo()


class Unread(dict[str, Any]):
    """A state dict whose tensors are retrieved as they are asked for, and not kept."""

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        return found[...] if isinstance(found, Lazy) else found

    def __iter__(self) -> Iterator[str]:  # so that `dict(this)` asks as well
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        found = super().get(name, default)
        return found[...] if isinstance(found, Lazy) else found

    def pop(self, name: str, *default: Any) -> Any:
        found = super().pop(name, *default)
        return found[...] if isinstance(found, Lazy) else found

    def items(self) -> Any:
        return ((name, self[name]) for name in list(self))

    def values(self) -> Any:
        return (self[name] for name in list(self))

    def copy(self) -> Unread:
        return Unread({name: dict.__getitem__(self, name) for name in self})


def is_model(folder: Path, key: str = "model_type") -> bool:
    """Whether a folder's config is one of transformers' models (`key`: of another library's)."""
    return (folder / "config.json").exists() and key in read_json(folder / "config.json")


def weights_name(component: str, whole: Whole) -> str:
    """What a component's file of weights is called."""
    return whole.retrieval.task.layout[component].rpartition("/")[2]


def save_part(folder: Path, component: str, given: Given) -> None:
    """Write a component, small and of no loader that is known, as its file."""
    made = {name: lazy[...] for name, lazy in given.state.items()}
    save_file(made, folder / weights_name(component, given.whole))
