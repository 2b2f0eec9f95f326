"""`from_bank` for timm; see `randes_cli.live.timm`."""

from randes_cli.live.timm import from_bank

__all__ = ["from_bank"]
