"""The method: pure arithmetic on arrays. No file, no progress bar, no global state.

Read in this order: `unit` (what is superposed together), `signs` and `shuffle` (the two parts of
a transform, from seeds), `grid` (the step), `convert` (dtypes), `kernel` (one strip of a
superposition), `levels` and `codes` (few bits). `prediction` says what to expect, `compiled` has
the passes of `kernel` in C.
"""
