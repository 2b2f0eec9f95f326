"""A checkpoint that is known by what is read of it: every byte once, the rest afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.files.digests import digest, fingerprint
from randes_cli.files.source import Source
from randes_cli.plan import Rect, chunks
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.workers import Progress, run_chunks


class Watched:
    """A source that digests the whole chunks which are read of it."""

    def __init__(self, inner: Source) -> None:
        self.inner, self.tensors = inner, inner.tensors
        self.source, self.metadata = inner.source, inner.metadata
        self._found: dict[tuple[str, int], bytes] = {}
        #: Number and length of each chunk of a tensor, by its first byte.
        self._chunks: dict[str, Mapping[int, tuple[int, int]]] = {}

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data."""
        self.inner.read(name, start, out)
        number, nbytes = self._places(self.tensors[name]).get(start, (-1, -1))
        if nbytes == len(out) and (name, number) not in self._found:
            self._found[name, number] = digest(out)

    def _places(self, tensor: TensorInfo) -> Mapping[int, tuple[int, int]]:
        found = self._chunks.get(tensor.name)
        if found is None:
            size = ITEM_SIZE[tensor.dtype]
            found = {
                rect.start * size: (number, rect.elements * size)
                for number, rect in enumerate(chunks(*tensor.matrix))
            }
            self._chunks[tensor.name] = found
        return found

    def fingerprint(self, run: RunOptions, progress: Progress) -> str:
        """That of its content. Reads what was not read as whole chunks."""

        def work(name: str, number: int, rect: Rect) -> int:
            nbytes = rect.elements * ITEM_SIZE[self.tensors[name].dtype]
            if (name, number) not in self._found:
                start = rect.start * ITEM_SIZE[self.tensors[name].dtype]
                self.read(name, start, np.empty(nbytes, np.uint8))
            return nbytes

        left = [tensor for tensor in self.tensors.values() if not self._whole(tensor)]
        run_chunks(left, work, run, phase=f"reading {self.source}", progress=progress)
        joined = {
            name: b"".join(self._found[name, n] for n in range(len(self._places(tensor))))
            for name, tensor in self.tensors.items()
        }
        return fingerprint(self.tensors, joined)

    def _whole(self, tensor: TensorInfo) -> bool:
        numbers = range(len(self._places(tensor)))
        return all((tensor.name, number) in self._found for number in numbers)
