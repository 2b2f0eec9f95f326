"""Which task each row or token of a batch asks for, and whether rows stay rows inside a model."""
