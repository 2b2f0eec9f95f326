"""Writing banks: pack, add, remove, seal; what they share."""
