"""randes itself: the fine-tunes packed into a bank file, and retrieved from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from beds import CACHE, Bed, StateDict, load, save
from kinds import ENDS
from methods import Models, Packed

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.core.prediction.quality import noise_of
from randes_cli.files.bank.file import BankFile
from randes_cli.stats.coefficients import coefficients
from randes_cli.stats.lengths import bank_lengths, stored_lengths


def crowd(bed: Bed, wanted: int) -> dict[str, Path]:
    """`wanted` checkpoints by name: the tasks, then further fine-tunes, then the same as copies.

    A copy has a name and an index of its own, so other signs. Tasks are dealt in turn: where the
    number of groups has a factor in common with that of the checkpoints, copies of one meet.
    """
    known: Mapping[str, Path] = {**bed.tasks, **bed.folders, **bed.extra}
    found = dict(list(known.items())[:wanted])
    for turn in count(1):
        again = list(known.items())[: wanted - len(found)]
        if not again:
            break
        found.update({f"{name}-again-{turn}": path for name, path in again})
    return found


@dataclass(frozen=True)
class Setting:
    """What a bank is packed with.

    `tasks` are so many of the bed's, or beyond them copies; `half` packs all models in bfloat16;
    `ends` keeps embeddings and the output head exactly.
    """

    preset: str
    bits: int
    groups: int = 1
    share: int = 1
    tasks: int | None = None
    half: bool = False
    ends: bool = False

    @property
    def name(self) -> str:
        """As tables call it: ``two-sided 4 x 2 bit on 1/2, T=32``."""
        groups = f"{self.groups} x " if self.groups > 1 else ""
        share = f" on 1/{self.share}" if self.share > 1 else ""
        crowd = f", T={self.tasks}" if self.tasks else ""
        half = ", bf16" if self.half else ""
        ends = ", ends exact" if self.ends else ""
        return f"{self.preset} {groups}{self.bits} bit{share}{crowd}{half}{ends}"


def bank(setting: Setting) -> Callable[[Models, int], Packed]:
    """A bank of one transform and width; its bytes are those of the file.

    Where the base lies outside, one is counted all the same, as for every other method.
    """

    def build(models: Models, seed: int) -> Packed:
        bed = models.bed
        members = crowd(bed, setting.tasks or len(models.tasks))
        options = PackOptions(
            Transform.from_preset(setting.preset),
            bits=setting.bits,
            share=setting.share,
            seed=seed,
            groups=setting.groups,
            exact=ENDS.pattern if setting.ends else None,
            merge_adapters=bool(bed.folders) and not bed.outside,
        )
        run, told = RunOptions(threads=1), [task for task in models.tasks if task in members]
        with TemporaryDirectory(dir=CACHE) as folder:
            path = Path(folder) / "bank.randes"
            find = partial(_halved, Path(folder)) if setting.half else str
            inputs = [TaskInput(name, find(source)) for name, source in members.items()]
            pack(None if bed.outside else find(bed.base), inputs, path, options, run)
            nbytes, (defaults, noise) = path.stat().st_size, _told(path, told)
            opened = Bank.open(path, run=run)  # stays readable without its name

        def restore(task: str, knob: float) -> StateDict:
            return opened.retrieve(task, coefficient=knob)

        facts = {**asdict(setting), "tasks": len(members), "noise": noise}
        return Packed(nbytes + bed.outside * models.base_bytes, restore, defaults, facts)

    return build


def _halved(folder: Path, source: Path) -> str:
    """A checkpoint in bfloat16, as most are that people have."""
    path = folder / source.name
    if not path.exists():
        save({name: tensor.bfloat16() for name, tensor in load(source).items()}, path)
    return str(path)


def own_deltas(bits: int) -> Callable[[Models, int], Packed]:
    """A bank with a group for each task: one quantised delta each, by the product's own codec."""

    def build(models: Models, seed: int) -> Packed:
        return bank(Setting("ta", bits, len(models.tasks)))(models, seed)

    return build


def _told(path: Path, tasks: Sequence[str]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """λ by task as `unpack` takes it from the bank's norms, and the noise of these tasks."""
    file = BankFile(path)
    lengths = bank_lengths(file.manifest, stored_lengths(file))
    chosen, noise = coefficients(file.manifest, lengths), noise_of(lengths)
    names = [task.name for task in file.manifest.tasks]
    file.close()
    places = [names.index(task) for task in tasks]
    parts = {
        key: getattr(noise, key)[places].tolist()
        for key in ("others", "dropped", "rounding", "following", "along")
    }
    return dict(zip(names, chosen, strict=True)), parts
