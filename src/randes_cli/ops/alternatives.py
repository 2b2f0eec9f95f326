"""What a bank would weigh, and give back, with other bits and numbers of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from randes_cli.files.bank import BankFile
from randes_cli.ops.prediction import Moments

#: Mean square error of the Lloyd–Max quantiser of a unit Gaussian, by bits; rounding at 8 and
#: 16 bits is too fine to matter.
DISTORTION = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 8: 0.0, 16: 0.0}
GROUPS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Alternative:
    """A bank of the same tasks with other bits or groups. `bank_bytes` leaves out the scales.

    Attributes:
        predicted_cosine: mean over the tasks, for groups of equal energy.
        present: whether it is the bank at hand.
    """

    groups: int
    bits: int
    bank_bytes: int
    predicted_cosine: float
    present: bool


def alternatives(bank: BankFile, found: Moments) -> tuple[Alternative, ...]:
    """Neighbouring choices of bits and groups, smallest bank first."""
    manifest = bank.manifest
    tensors = bank.header.tensors
    count = len(manifest.tasks)
    summed = {key.split("/", 2)[2] for key in tensors if key.startswith("sum/")}
    held = sum(tensor.nbytes for key, tensor in tensors.items() if key.startswith("sum/"))
    elements = sum(tensor.elements for tensor in manifest.base.tensors if tensor.name in summed)
    rest = bank.header.file_size - held
    meeting = np.bincount([task.group for task in manifest.tasks], minlength=1).max(initial=1)
    noise = np.maximum(found.length - found.own, 0.0)
    made = []
    for groups in sorted({*(g for g in GROUPS if g <= count), manifest.groups}):
        share = (count / groups - 1) / max(1, int(meeting) - 1)
        energy = found.own + np.maximum(share, 0.0) * noise
        ideal = np.sqrt(np.divide(found.own, energy, out=np.ones(count), where=energy > 0))
        for bits, distortion in DISTORTION.items():
            present = (groups, bits) == (manifest.groups, manifest.bits)
            size = bank.header.file_size if present else rest + groups * elements * bits // 8
            cosine = found.cosine if present else ideal * np.sqrt(1 - distortion)
            mean = float(cosine.mean()) if count else 1.0
            made.append(Alternative(groups, bits, size, mean, present))
    return tuple(sorted(made, key=lambda one: (one.bank_bytes, one.groups)))
