"""`Pool`: one model in memory that becomes one task after another."""
