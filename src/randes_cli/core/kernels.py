"""Which arithmetic backend a device name stands for."""

from __future__ import annotations

from randes_cli.core.fused_kernel import FusedKernel, available
from randes_cli.core.kernel import Kernel, NumpyKernel
from randes_cli.errors import UsageError
from randes_cli.specs import DEVICES


def make_kernel(device: str, *, elements: int, layers: int) -> Kernel:
    """A kernel with buffers for strips of `elements` of up to `layers` layers."""
    if device in ("auto", "cpu"):  # measured with an H200: docs/performance.md
        return (FusedKernel if available() else NumpyKernel)(elements, layers)
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; choose from {', '.join(DEVICES)}")
    from randes_cli.core.torch_kernel import TorchKernel

    return TorchKernel(device.removesuffix("-torch"), elements, layers)
