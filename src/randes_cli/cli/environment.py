"""The process's environment: what the command line sets for itself alone."""

from __future__ import annotations

import os

#: As it was given to us, for the commands that users have us run.
GIVEN = dict(os.environ)


def prepare() -> None:
    """Keep NumPy's matrix products on the thread that asks for them: the cores have work."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
