"""Solvers as tables: every sampler is linear in what it remembers, so the noise levels alone decide its coefficients.

`level` (one noise level), `trained_noise` (the levels a model was trained with), `spacing` and `sigma_schedules` (which of
them a walk visits), `walk` (the steps between them), `trained_walk` and `flow_walk` with `flow_sigmas` (walks from a model's
config), `line` (one evaluation of the denoiser and what follows from it).

A solver is a function from a `Walk` to its lines: `euler`, `ddim`, `second_order` (two evaluations a step), `dpm`, `unipc`,
`lms`, `pndm`, `deis`, `res`, `consistency`. `table` has them all by the ids of `domains.inference.samplers`; `plan`
makes the lines of a request.

Latents are α·clean + σ·noise at every level. So latents of a model of ε or v have a variance of about 1 and go to its
denoiser as they are; those of a flow model have α = 1 − σ. Everything here is float64, and torch is not needed.
"""
