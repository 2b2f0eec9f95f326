"""A server: every task of a bank behind one address, rows of one batch."""
