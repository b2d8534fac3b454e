"""Models on disk: finds, checks and names them, and tracks their loads on devices. Knows no torch; `on_device` does.

Finding: `roots` (which folders may be read), `walk` with `places` (where models lie, and in which form), `look` with
`look_memory` and `scan` (one look, what it need not read again, its report), `catalogue` with `catalogue_store` (the
models that requests may name), `naming` (ids), `suggest` (known prompts),
`roots_watch` with `roots_look` (scans without a request, when files have changed), `notes` with `edit` (what callers note
about models), `reconcile` (a caller's cache compared with it).

Checking a folder: `diffusers_folder` (the whole), `component_folder` and `weight_choice` (one part, and which weight
files count), `safetensors_header` with `header_json` (the header of a weight file), `json_file` (configs), `families` (one
file of facts a family), `folder_family` (the family of a folder), `kind` (of models and parts), `scheduler_config` and
`sampler_names` (options of a scheduler), `fingerprint` (hashes).

Checking other files: `weights_model` (a single file, the folder of one component), `detected_model` (the model that they
make), `single_file` with `shipped_files` and `tensor_settings` (configs and tokenizers of a checkpoint in one file),
`tokenizer_settings` (those that a tokenizer's files may choose),
`detect` (kind and family from headers), `folder_evidence` (why a folder is of its family), `precision` (the mix),
`convert_pickle` (pickles, in a process of its own), `inspect` (all of it for a caller), `finding` (what is wrong, or worth
knowing), `validation` with `validate`, `file_check`, `content_hash` and `non_finite` (all bytes of a model). Made of
others: `register` with `composition` and `part_fit` (whether their widths fit); for one request, `assembly`.

Values: `model` (on disk), `loaded` (on a device), `benchmark`. `loaded_models` (all of those), `loaded_watch` (their
changes for one reader), `execution` with `ways` and `device_fit` (how a model computes), `footprints` (what it will take)
with `layer_sizes`, `weight_quantization` (weights in fewer bits), `reading_sizes` (what it keeps of a prompt),
`component_headers` and `remembered`.
The RAM tier: `host_models` (all models in it), `held_file` with `page_cache` (one file that stays in RAM).
Opening checked files: `regular_file`, `weight_file`, `component_config`.

Converting: `conversion` (what is asked for and made), `conversion_check` with `quantized` (why it is refused),
`convert_model` (the process that does it), `publish` (gives files their final names).

Loading: `on_device`, in a worker.
"""
