"""A bank's file or files: manifest, shards, writer."""
