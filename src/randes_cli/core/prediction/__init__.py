"""How near each task comes back, from what is known of the deltas: lengths, products, tails.

`formula` is the prediction: from `lengths`, what deltas have in common (`crossing`) and what few
bits cost (`cut`, `dealt`, `mixture`). `cosines` has λ and what is lost, `quality` what of the gain
over the base is kept, `verdict` words for it.
"""
