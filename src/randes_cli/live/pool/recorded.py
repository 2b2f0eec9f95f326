"""A swap on a CUDA device as a graph: one launch for all tensors of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from randes_cli.live.attaching import Slot
from randes_cli.live.pool.swaps import Job, forms
from randes_cli.live.weights.parts import Parts


class Recorded:
    """What a device does for the jobs that are ready for it.

    Attributes:
        left: the jobs that are not.
    """

    def __init__(
        self, jobs: Sequence[Job], write: Callable[[Slot, Parts], bool], device: torch.device
    ) -> None:
        """`write` does a job on the current stream and says whether it could."""
        self._forms = forms(jobs)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.stream(stream):
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self.left = [job for job in jobs if not write(*job)]
            finally:
                self._graph.capture_end()

    def fits(self, jobs: Sequence[Job]) -> bool:
        """Whether the parameters lie where they lay."""
        return self._forms == forms(jobs)

    def replay(self) -> None:
        self._graph.replay()


def wait_for(slots: Sequence[Slot]) -> None:
    """Until devices have done all that they were asked for."""
    for device in {slot.tensor.device for slot in slots}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
