"""`from_bank` for sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from randes_cli.api import Bank
from randes_cli.errors import MissingError
from randes_cli.live.lazy import Whole, lazy_components, opened, side_folder
from randes_cli.live.opening.redirected import Given, is_model, save_part
from randes_cli.live.opening.transformers import MODELS


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    cls: type[Any] = SentenceTransformer,
    base: str | None = None,
    coefficient: float | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """A task of a bank as its sentence-transformers model; None is the base itself.

    The encoders are filled as `randes_cli.transformers.from_bank` fills them. The layers that
    this library adds itself (``2_Dense`` and the like, some megabytes) pass through a temporary
    folder. `cls` may be CrossEncoder or SparseEncoder; `options` (``device``,
    ``model_kwargs={"dtype": …}`` …) go to it.

    Raises MissingError for an unknown task, or where no modules.json or config travels with it.
    """
    with opened(bank, base) as found:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        with side_folder(found, task, code=trust_remote_code) as folder:
            if not any((folder / name).exists() for name in ("modules.json", "config.json")):
                raise MissingError(f"{found.file.path}: no modules.json or config.json in the bank")
            with _filled(folder, whole):
                return cls(str(folder), trust_remote_code=trust_remote_code, **options)


@contextmanager
def _filled(folder: Path, whole: Whole) -> Iterator[None]:
    """Models that are loaded from `folder` in the block are filled from the bank."""
    encoders = {}
    for component, state in lazy_components(whole).items():
        place, given = folder / component, Given(state, whole)
        if is_model(place):
            encoders[place] = given
        else:
            save_part(place, component, given)
    with MODELS.giving(encoders):
        yield
