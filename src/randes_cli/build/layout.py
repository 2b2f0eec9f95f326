"""Which tensors a new bank has, and how large it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from randes_cli.build.copies import closing_tensors
from randes_cli.build.exact import kept_tensor, owned_copies
from randes_cli.build.strips import Participant, Source, sum_groups, sum_tensors
from randes_cli.files.bank_checks import statistics_shapes
from randes_cli.files.bank_keys import BASE_DIGESTS, base_key, file_key, sealed_tensors
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.side_files import SideFile
from randes_cli.plan import Unit, sealable, superposable, tensor_bytes
from randes_cli.specs import ITEM_SIZE, BaseStorage, TensorInfo
from randes_cli.stats.stored import Cells, choose_cells


@dataclass(frozen=True)
class Layout:
    """The tensors of a bank under way; `bits` may still change while its units are computed."""

    base: Source
    participants: list[Participant]
    storage: BaseStorage
    units: list[Unit]
    side_files: Mapping[str, SideFile]
    bits: Mapping[Unit, int]

    def base_tensors(self) -> list[TensorInfo]:
        """The base's tensors as stored: none where it lies outside."""
        if self.storage is not BaseStorage.embed:
            return []
        ordered = sorted(self.base.tensors.values(), key=lambda tensor: -ITEM_SIZE[tensor.dtype])
        return [TensorInfo(base_key(one.name), one.dtype, one.shape) for one in ordered]

    def cells(self) -> Cells:
        """What the Gram matrices cover."""
        return choose_cells(self.units, list(self.base.tensors.values()), len(self.participants))

    def statistics(self) -> list[TensorInfo]:
        """Lengths, Gram matrices, and the digests of a base outside."""
        count = len(self.participants)
        rows = sum(superposable(tensor) for tensor in self.base.tensors.values())
        shapes = statistics_shapes(rows, len(self.cells()), count)
        made = [TensorInfo(key, "F64", shape) for key, shape in shapes.items()]
        if self.storage is BaseStorage.reference:
            size = DIGEST_BYTES * sum(map(chunk_count, self.base.tensors.values()))
            made.append(TensorInfo(BASE_DIGESTS, "U8", (size,)))
        return made

    def sums(self, units: Iterable[Unit]) -> list[TensorInfo]:
        """The superpositions of these units, a group at a time."""
        entered = {unit: sum_groups(unit, self.participants) for unit in units}
        return [
            tensor
            for group in sorted({participant.group for participant in self.participants})
            for unit, groups in entered.items()
            if group in groups
            for tensor in sum_tensors(unit, group, self.bits.get(unit, 16), self.base.tensors)
        ]

    def files(self) -> list[tuple[TensorInfo, SideFile]]:
        """The side files, each content once."""
        return [
            (TensorInfo(file_key(content), "U8", (file.size,)), file)
            for content, file in sorted(self.side_files.items())
        ]

    def candidates(self) -> list[TensorInfo]:
        """Every tensor that the bank may have."""
        made = [*self.base_tensors(), *self.statistics(), *(tensor for tensor, _ in self.files())]
        made += self.sums(self.units)
        made += (kept_tensor(c, self.base) for c in owned_copies(self.base, self.participants))
        return [*made, *closing_tensors()]

    def estimate(self, superposed: Iterable[Unit], seal_bits: int | None = None) -> int:
        """Bytes of the bank, at most but for the manifest's and digests' few."""
        text = 300 * len(self.base.tensors) + 2**10 * len(self.participants) + 2**12
        sizes = sum(
            tensor.nbytes for tensor in self.candidates()[:-2] if not tensor.name.startswith("sum/")
        )
        return sizes + tensor_bytes(self._held(self.sums(superposed), seal_bits)) + text

    def _held(self, sums: Iterable[TensorInfo], seal_bits: int | None) -> Iterator[TensorInfo]:
        """Superpositions as the bank keeps them in the end."""
        for tensor in sums:
            _, group, name = tensor.name.split("/", 2)
            if seal_bits is not None and sealable(self.base.tensors[name]):
                yield from sealed_tensors(int(group), self.base.tensors[name], seal_bits)
            else:
                yield tensor
