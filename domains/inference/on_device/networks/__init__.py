"""Networks in our order of operations: `unet` with `transformer` and `resnet`; `vae_decoder`, `vae_encoder`, `vae_attention`.

Their layers: `slices` and `small_conv`; `watched_module` lets a forward of diffusers be left between its parts.
"""
