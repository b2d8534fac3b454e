"""Image generations: their requests, checks, resolution and computation. Only `on_device` imports torch.

Requests: `generation` (the request and the resolved request), with its parts `init_image` and `input_picture` (the picture
that it starts from), `loras`, `textual_inversions`,
`benchmark`, `controls` (control maps that guide the layout) with `image_fit` and `preprocessors` (ways to make control
maps), `image_prompts` (pictures that guide content and style), `regions` (parts with prompts of their own), `fields` (what
is served) with `family_fields` (which of it a family reads), `limits` (ranges), `samplers` (the samplers and sigma
schedules).

Passes: `refiner`, `hires` (a second one at a larger size) with `resampling`, `latents`, `details` with `detections` (what
a detector finds), `pass_plan` (each pass as a generation), `kept_readings` (what ControlNets keep of earlier prompts).

Checked and resolved: `checks` (all faults of a request), `resolution` (each choice that it left open).

Prompts: `prompts` (the words of a prompt with their weights, and the windows of a text encoder).

Noise schedules and solvers: `solvers` (each sampler as a table of coefficients, from the model's noise levels).

Input of a run: `given` (an attempt with all that it reads).

Reports and files: `outcome` (reports of a running generation), `kept_file` (a file that the front keeps for the worker),
`manifest` and `a1111` (the texts inside a picture's file).

Computation: `on_device`, in a worker.
"""
