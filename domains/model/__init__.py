"""Models on disk: found, judged, named and followed onto devices. Knows no torch; `on_device` does.

Finding: `roots` (which folders may be read), `walk` (folders with an index), `look` and `scan` (one look and its report),
`catalogue` with `catalogue_store` (the models that requests may name), `naming` (ids), `suggest` (known prompts),
`roots_watch` with `roots_look` (scans that nobody asks for, when files have changed).

Judging a folder: `diffusers_folder` (the whole), `component_folder` and `weight_choice` (one part, and which of its weight
files count), `safetensors_header` with `header_json` (what a weight file says), `json_file` (configs), `families` (what
proves a family), `scheduler_config` and `sampler_names` (what a scheduler config asks for), `fingerprint` (hashes).

Values: `model` (on disk), `loaded` (on a device). Opening what was judged: `regular_file`, `weight_file`.

Loading: `on_device`, in a worker.
"""
