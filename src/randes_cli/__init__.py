"""randes: many fine-tuned models of one base in a single file at about the size of the base.

    from randes_cli import Bank, TaskInput, pack

Names are imported when first used, so that the command line starts without NumPy or torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # without typing, the command line handles signals 4 ms sooner
if TYPE_CHECKING:
    from randes_cli import diffusers as diffusers
    from randes_cli import sentence_transformers as sentence_transformers
    from randes_cli import timm as timm
    from randes_cli import transformers as transformers
    from randes_cli.api import Bank as Bank
    from randes_cli.build.convert import convert as convert
    from randes_cli.build.edit import add as add
    from randes_cli.build.edit import remove as remove
    from randes_cli.build.pack import pack as pack
    from randes_cli.build.seal.seal import seal as seal
    from randes_cli.errors import BankDamaged as BankDamaged
    from randes_cli.errors import BankLocked as BankLocked
    from randes_cli.errors import CheckFailed as CheckFailed
    from randes_cli.errors import CheckpointError as CheckpointError
    from randes_cli.errors import HubError as HubError
    from randes_cli.errors import InputOutputError as InputOutputError
    from randes_cli.errors import MismatchError as MismatchError
    from randes_cli.errors import MissingError as MissingError
    from randes_cli.errors import NewerFormat as NewerFormat
    from randes_cli.errors import NoSpace as NoSpace
    from randes_cli.errors import OutOfResources as OutOfResources
    from randes_cli.errors import RandesError as RandesError
    from randes_cli.errors import TooManyOpen as TooManyOpen
    from randes_cli.errors import UsageError as UsageError
    from randes_cli.files.bank.records import TaskRecord as TaskRecord
    from randes_cli.files.recipe.recipe import Recipe as Recipe
    from randes_cli.live.mixed import MixedModel as MixedModel
    from randes_cli.live.mixed import attach as attach
    from randes_cli.live.pool.pool import Pool as Pool
    from randes_cli.ops.describe import BankReport as BankReport
    from randes_cli.ops.diff import BankDiff as BankDiff
    from randes_cli.ops.diff import CheckpointDiff as CheckpointDiff
    from randes_cli.ops.evaluate import EvaluateReport as EvaluateReport
    from randes_cli.ops.evaluate import evaluate as evaluate
    from randes_cli.ops.push import PushReport as PushReport
    from randes_cli.ops.push import push as push
    from randes_cli.ops.tune import TuneOptions as TuneOptions
    from randes_cli.ops.tune import TuneReport as TuneReport
    from randes_cli.ops.tune import tune as tune
    from randes_cli.ops.verify import VerifyReport as VerifyReport
    from randes_cli.read.load import LoadReport as LoadReport
    from randes_cli.read.places import UnpackOptions as UnpackOptions
    from randes_cli.read.unpack import UnpackReport as UnpackReport
    from randes_cli.read.unpack import unpack as unpack
    from randes_cli.reports import ConvertReport as ConvertReport
    from randes_cli.reports import EditReport as EditReport
    from randes_cli.reports import PackReport as PackReport
    from randes_cli.reports import SealReport as SealReport
    from randes_cli.reports import TaskSummary as TaskSummary
    from randes_cli.server.service import serve as serve
    from randes_cli.specs import EditOptions as EditOptions
    from randes_cli.specs import OpenOptions as OpenOptions
    from randes_cli.specs import PackOptions as PackOptions
    from randes_cli.specs import RunOptions as RunOptions
    from randes_cli.specs import TaskInput as TaskInput
    from randes_cli.specs import Transform as Transform
    from randes_cli.verbs.banks import Inspection as Inspection
    from randes_cli.verbs.banks import diff as diff
    from randes_cli.verbs.banks import inspect as inspect
    from randes_cli.verbs.banks import verify as verify
    from randes_cli.verbs.pictures import Written as Written
    from randes_cli.verbs.pictures import plot as plot
    from randes_cli.verbs.pictures import report as report

__version__ = "0.1.0"

#: The public names of each module.
_NAMES = {
    "api": "Bank",
    "build.convert": "convert",
    "build.edit": "add remove",
    "build.pack": "pack",
    "build.seal.seal": "seal",
    "errors": "BankDamaged BankLocked CheckFailed CheckpointError HubError InputOutputError "
    "MismatchError MissingError NewerFormat NoSpace OutOfResources RandesError TooManyOpen "
    "UsageError",
    "files.recipe.recipe": "Recipe",
    "files.bank.records": "TaskRecord",
    "live.mixed": "MixedModel attach",
    "live.pool.pool": "Pool",
    "ops.describe": "BankReport",
    "ops.diff": "BankDiff CheckpointDiff",
    "ops.evaluate": "EvaluateReport evaluate",
    "ops.push": "PushReport push",
    "ops.tune": "TuneOptions TuneReport tune",
    "ops.verify": "VerifyReport",
    "read.load": "LoadReport",
    "read.places": "UnpackOptions",
    "read.unpack": "UnpackReport unpack",
    "reports": "ConvertReport EditReport PackReport SealReport TaskSummary",
    "server.service": "serve",
    "specs": "EditOptions OpenOptions PackOptions RunOptions TaskInput Transform",
    "verbs.banks": "Inspection diff inspect verify",
    "verbs.pictures": "Written plot report",
}
_HOME = dict(sorted((name, home) for home, names in _NAMES.items() for name in names.split()))
#: Modules with a `from_bank` for a library of this name.
_LIBRARIES = ("diffusers", "sentence_transformers", "timm", "transformers")
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"randes_cli.{_HOME[name]}"), name)
    if name in _LIBRARIES:
        return import_module(f"randes_cli.{name}")
    raise AttributeError(f"module 'randes_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
