"""Jobs of a pass over all tensors: the one place where deltas enter and leave superpositions.

`work` makes `jobs` of what a pass has and gives them to threads. `strips` does one in NumPy or
torch, `compiled` the same in one call of C, `many` those of small tensors (`together`); `exact`
tensors and `copies` go beside. `tally` is what they find out. `cutter` cuts sums to few bits
(`sums`, `writing`) as soon as nothing more comes (`waiting`).
"""
