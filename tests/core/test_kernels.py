"""The device that a job computes on."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from randes_cli.core.kernels import make_kernel
from randes_cli.specs import RunOptions


def test_auto_is_the_cpu_and_starts_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is one: torch is not so much as asked."""

    class Asked(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"torch.{name} was asked for")

    monkeypatch.setitem(sys.modules, "torch", Asked("torch"))
    monkeypatch.delitem(sys.modules, "randes_cli.core.torch_kernel", raising=False)
    assert RunOptions().device == "auto"
    kernel = make_kernel(RunOptions().device, elements=512, layers=1)
    assert type(kernel) is type(make_kernel("cpu", elements=512, layers=1))
    with pytest.raises(AssertionError, match="torch"):
        make_kernel("cuda", elements=512, layers=1)
