"""The passes of `core` in C, with what calls them; each makes the bytes that NumPy makes.

`kernel` is the backend; `run` (of a superposition), `back` (of a task), `cut` (to few bits),
`sample` and `swap` each call one C file; so does `product` (of stored codes), whose last digits
differ among processors. `fused.h` has what these share.
"""
