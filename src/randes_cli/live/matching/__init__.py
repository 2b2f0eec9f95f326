"""Which tensors of a bank belong to which parameters of a model."""
