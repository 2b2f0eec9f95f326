"""What samples tell of deltas, and of how long, wide and alike they are."""
