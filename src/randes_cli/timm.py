"""`from_bank` for timm; see `randes_cli.live.opening.timm`."""

from randes_cli.live.opening.timm import from_bank

__all__ = ["from_bank"]
