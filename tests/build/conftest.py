"""A family to seal."""

from tests.build.sealing import folder

__all__ = ["folder"]
