"""randes: many fine-tuned models of one base in a single file at about the size of the base.

    from randes_cli import Bank, TaskInput, pack

Names are imported when first used, so that the command line starts without NumPy or torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from randes_cli import diffusers as diffusers
    from randes_cli import sentence_transformers as sentence_transformers
    from randes_cli import timm as timm
    from randes_cli import transformers as transformers
    from randes_cli.api import Bank as Bank
    from randes_cli.api import TuneOptions as TuneOptions
    from randes_cli.api import evaluate as evaluate
    from randes_cli.api import pack as pack
    from randes_cli.api import seal as seal
    from randes_cli.api import tune as tune
    from randes_cli.errors import RandesError as RandesError
    from randes_cli.live.mixed import MixedModel as MixedModel
    from randes_cli.live.mixed import attach as attach
    from randes_cli.specs import PackOptions as PackOptions
    from randes_cli.specs import RunOptions as RunOptions
    from randes_cli.specs import TaskInput as TaskInput
    from randes_cli.specs import Transform as Transform

__version__ = "0.1.0"

_HOME = {
    "Bank": "api",
    "MixedModel": "live.mixed",
    "TuneOptions": "api",
    "attach": "live.mixed",
    "evaluate": "api",
    "pack": "api",
    "seal": "api",
    "tune": "api",
    "RandesError": "errors",
    "PackOptions": "specs",
    "RunOptions": "specs",
    "TaskInput": "specs",
    "Transform": "specs",
}
#: Modules with a `from_bank` for a library of this name.
_LIBRARIES = ("diffusers", "sentence_transformers", "timm", "transformers")
__all__ = [
    "Bank",
    "MixedModel",
    "PackOptions",
    "RandesError",
    "RunOptions",
    "TaskInput",
    "Transform",
    "TuneOptions",
    "attach",
    "evaluate",
    "pack",
    "seal",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"randes_cli.{_HOME[name]}"), name)
    if name in _LIBRARIES:
        return import_module(f"randes_cli.{name}")
    raise AttributeError(f"module 'randes_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
