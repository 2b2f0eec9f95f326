"""Superpositions cut to few bits: of a bank that is there, and as they are packed."""
