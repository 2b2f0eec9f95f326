"""`from_bank` for sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from randes_cli.api import Bank
from randes_cli.errors import MissingError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Lazy, Whole, lazy_components, opened, side_folder
from randes_cli.live.transformers import build


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
            with _redirected(folder, lazy_components(whole), whole):
                return cls(str(folder), trust_remote_code=trust_remote_code, **options)


@contextmanager
def _redirected(
    folder: Path, parts: Mapping[str, Mapping[str, Lazy]], whole: Whole
) -> Iterator[None]:
    """Models that are loaded from `folder` in the block are filled from the bank.

    The library passes a path to `from_pretrained` and nothing else that could hold weights, so
    that method looks for this folder; all other paths it loads as ever.
    """
    encoders = {}
    for component, state in parts.items():
        place = folder / component
        if (place / "config.json").exists() and "model_type" in read_json(place / "config.json"):
            encoders[place.resolve()] = state
        else:
            made = {name: lazy[...] for name, lazy in state.items()}
            save_file(made, place / whole.retrieval.task.layout[component].rpartition("/")[2])
    before = transformers.PreTrainedModel.from_pretrained.__func__

    def load(kind: type[Any], path: Any, *more: Any, **options: Any) -> Any:
        place = Path(path or "", options.get("subfolder") or "").resolve()
        if path is None or place not in encoders:
            return before(kind, path, *more, **options)
        for name in ("subfolder", "cache_dir", "revision", "token", "local_files_only"):
            options.pop(name, None)
        return build(place, encoders[place], whole, cls=kind, **options)

    with patch.object(transformers.PreTrainedModel, "from_pretrained", classmethod(load)):
        yield
