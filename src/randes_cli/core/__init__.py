"""The method: pure arithmetic on arrays. No file, no progress bar, no global state.

Read in this order: `streams` (randomness from names), `signs` and `shuffle` (the two parts of
a transform), `grid` (the step), `convert` (dtypes), `kernel` (one strip of a superposition),
`stats` (what to expect of a retrieval).
"""
