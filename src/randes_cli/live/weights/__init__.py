"""A parameter as all tasks of a bank have it: its base, and the superpositions that are added.

`weight` is the whole; `group` one superposition, `held` dense or as stored (`codes`), `stack`
several for a kernel; `blocks` are the products with a share of a matrix.
"""
