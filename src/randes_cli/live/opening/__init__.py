"""`from_bank` for each library: its own loader, fed tensors that come as they are asked for."""
