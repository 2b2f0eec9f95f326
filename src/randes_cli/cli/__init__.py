"""The `randes` command: the only place that knows typer, rich and tqdm."""
