"""Which arithmetic backend a device name stands for, and how many elements it takes at once."""

from __future__ import annotations

from randes_cli.core.kernel import SPARE, Kernel, NumpyKernel
from randes_cli.errors import UsageError
from randes_cli.specs import DEVICES

#: Elements of one strip unless memory or the caller says otherwise: large enough that threads
#: compute longer than they wait for Python's lock, small enough for a core's share of the cache.
STRIP_ELEMENTS = 2**19
#: Bytes that one thread's buffers may take unless --max-memory says otherwise.
THREAD_MEMORY = 48 * 2**20


def make_kernel(device: str, *, elements: int, layers: int) -> Kernel:
    """A kernel with buffers for strips of `elements` of up to `layers` layers."""
    from randes_cli.core.compiled.kernel import FusedKernel, available

    if device in ("auto", "cpu"):  # measured with an H200: docs/performance.md
        return (FusedKernel if available() else NumpyKernel)(elements, layers)
    if device not in DEVICES:
        raise UsageError(f"--device must be one of {', '.join(DEVICES)}, not {device!r}")
    from randes_cli.core.torch_kernel import TorchKernel

    return TorchKernel(device.removesuffix("-torch"), elements, layers)


def strip_elements(
    layers: int,
    *,
    max_memory: int | None,
    threads: int,
    chosen: int | None,
    most: int = STRIP_ELEMENTS,
) -> int:
    """Elements of one strip of a unit with `layers` layers, within the memory of a thread."""
    if chosen is not None:
        return max(1, chosen)
    budget = (max_memory // max(1, threads)) if max_memory else THREAD_MEMORY
    return max(256, min(most, (budget - 4 * SPARE) // (22 + 4 * layers)))


def strip_memory(layers: int, elements: int) -> int:
    """Bytes of one thread's buffers for strips of `elements` of up to `layers` layers."""
    return elements * (22 + 4 * layers) + 4 * SPARE
