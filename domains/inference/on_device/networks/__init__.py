"""Networks in our order of operations: `unet` with `transformer` and `resnet`; the VAE's beside them.

Their layers: `slices` and `small_conv`, with `order` (of a picture's elements in memory); `watched_module` lets a forward of
diffusers be left between its parts; `block_code` says which blocks compute with compiled code.
"""
