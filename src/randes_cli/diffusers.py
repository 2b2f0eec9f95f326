"""`from_bank` for diffusers; see `randes_cli.live.opening.diffusers`."""

from randes_cli.live.opening.diffusers import from_bank

__all__ = ["from_bank"]
