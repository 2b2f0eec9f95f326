"""`from_bank` for diffusers; see `randes_cli.live.diffusers`."""

from randes_cli.live.diffusers import from_bank

__all__ = ["from_bank"]
