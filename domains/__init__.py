"""The six domains: rules and state, with no gRPC and no protobuf; only `on_device` packages import torch.

One package each, importing only those before it: `device`, `memory`, `model`, `postprocessing`, `inference`, `processing`.

What all of them use: `errors` with `reasons` and `failure` (errors that callers receive), `stop` (requests to stop),
`draining` (the server's shutdown), `progress`, `requests` (repeated ones), `journal` (events in order), `events` with
`system_event` and `event_store` (the log of changes of the whole server), `clock` with `clock_store` (what time it is, and
whether to believe it), `measurement` with `rings` (values with units, and over time), `storage` with `migrations` and
`checkpoints` (the database of the state folder), `limits`, `labels`, `amounts` (as people read them), `descriptors` (files
by descriptor), `system_errors` (no memory, no thread, a disk that fails), `threads` (a pool), `imaging` (image files).
"""
