"""Writing banks: pack, add, remove, seal; what they share.

Read `pack` and `edit`, then `build` (the engine), `draft` (what a bank will hold), `steps` (the
grids), `fill` and `passes`; CONTRIBUTING.md follows one delta through them.
"""
