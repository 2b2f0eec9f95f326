"""Models that run from a bank: one opened from it, many in one batch, or one after the other."""
