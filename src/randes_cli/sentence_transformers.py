"""`from_bank` for sentence_transformers; see `randes_cli.live.opening.sentence_transformers`."""

from randes_cli.live.opening.sentence_transformers import from_bank

__all__ = ["from_bank"]
