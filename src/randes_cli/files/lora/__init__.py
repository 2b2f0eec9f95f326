"""LoRA adapters: what they are called, what they say, and merging them into a base."""
