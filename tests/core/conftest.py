"""The compiled passes, in each version that they have for this kind of processor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from randes_cli.core.compiled.kernel import processor


@pytest.fixture(params=[1, 3, 4])
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    """A version of the passes, or the best that this processor has where it has not that one."""
    yield processor(request.param)
    processor(99)
