"""The families that are computed, one module each. `family` is the interface, `table` the list.

What they share: `latent_codec` with `latent_colours`, `packing`, `longest_edge`.
"""
