"""Size limits of messages, in one place, so that checks, GetSystemStatus, the contract's comments and tests agree."""

from typing import Final

INLINE_BYTES: Final = 256 * 1024
"""Most bytes of one image inside a message; a larger one is a blob."""
REQUEST_INLINE_BYTES: Final = 2 * 1024 * 1024
"""Most bytes of all images inside one request."""
SPEC_BYTES: Final = 1024 * 1024
"""Most bytes of a request without its inline images, and so of its stored form."""
PAGE_BYTES: Final = 2 * 1024 * 1024
"""Size at which a page of a list ends."""
ANSWER_BYTES: Final = 4 * 1024 * 1024 - 4096
"""Most bytes of a message that the server sends: .NET's clients receive 4 MiB by default; the rest is for envelopes."""
ID_BYTES: Final = 255
"""Most bytes of an id, an etag or a page token in a request."""
TEXT_BYTES: Final = 64 * 1024
"""Most bytes of any other text in a request. A field can have a smaller limit, which its own check reports."""
LIST_ENTRIES: Final = 4096
"""Most entries of a list in a request, unless its field has a smaller limit."""
FAILURE_BYTES: Final = 8 * 1024
"""Most bytes of a failure with all its facts; longer texts are shortened."""
FINDING_BYTES: Final = 2 * 1024
"""Most bytes of a finding; longer texts are shortened."""
DEVICE_BYTES: Final = 32 * 1024
"""Most bytes of a device with its capabilities; longer texts are shortened."""
VERDICT_BYTES: Final = 8 * 1024
"""Most bytes of a safety verdict with all its scores."""
VERDICTS: Final = 8
"""Most policies that check one picture."""
PICTURE_BYTES: Final = 32 * 1024
"""Most bytes about one picture of many in an answer, verdicts and step reports included."""
STEP_BYTES: Final = 12 * 1024
"""Most bytes of one step of a workflow run; its own job holds the rest."""
OUTPUTS_BYTES: Final = 1024 * 1024
"""Most bytes of all outputs of a workflow run together."""
CAPABILITY_BYTES: Final = 20 * 1024
"""Most bytes of what some devices can do for one family and task: all fields of a generation, so that 4 kinds of devices, 7
families and 5 tasks fit into one answer (`tests/server/test_capabilities.py`)."""
CAPABLE_MODELS: Final = 200
"""Most models that GetInferenceCapabilities lists."""
COMPONENT_FILES: Final = 64
"""Most files that one component of a model lists."""
HINTS: Final = 32
"""Most models that one call of PrefetchModels names."""
RECLAIM_STEPS: Final = 256
"""Most steps that the report of a clean-up lists."""
ROOTS: Final = 32
"""Most folders that are searched for models."""
NAMED_IDS: Final = 1000
"""Most ids in one list of an answer without pages."""
POOL_OWNERS: Final = 100
"""Most owners that a memory pool lists, the largest first."""
SCAN_FAILURES: Final = 150
"""Most failures that a scan report lists."""
CAUSE_CHARACTERS: Final = 255
"""Longest cause that a caller can give for a request."""
VIOLATIONS: Final = 50
"""Most violations that one error lists."""
