"""Object stores and web servers: what is read by range, and what appears there whole."""
