"""Parameters of which each row of a batch has its own: norms and biases, and what models do with
them."""
