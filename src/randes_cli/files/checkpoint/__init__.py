"""Checkpoints as people have them: files and folders of weights."""
