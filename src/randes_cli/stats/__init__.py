"""What a bank knows of its deltas: norms, Gram matrices, predictions."""
