"""`from_bank` for transformers; see `randes_cli.live.opening.transformers`."""

from randes_cli.live.opening.transformers import from_bank, processor_from_bank

__all__ = ["from_bank", "processor_from_bank"]
