"""Reading banks: retrieval, unpack, load."""
