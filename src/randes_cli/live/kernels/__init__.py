"""Triton kernels for many tasks in one batch, and for swaps, without a copy of a dense delta.

`launch` calls them: `products` (four kernels) and `swap`, cut as `forms` says; `codes` and
`machine_code` turn packed codes into levels.
"""
