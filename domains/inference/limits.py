"""Limits of a generation, in one place, so that the check, the capability list and the contract's comments agree."""

from importlib.util import find_spec
from typing import Final

STEPS: Final = (1, 1000)
GUIDANCE: Final = (0.0, 50.0)
REFERENCES: Final = 4
"""Most pictures that a model sees beside the prompt."""
GUIDANCE_RESCALE: Final = (0.0, 1.0)
THRESHOLD_RATIO: Final = (0.0, 1.0)
EDGE_PX: Final = (64, 4096)
EDGE_MULTIPLE_PX: Final = 8
EDGES: Final = f"{EDGE_PX[0]}..{EDGE_PX[1]}, a multiple of {EDGE_MULTIPLE_PX}"
"""Description of the allowed edges."""
TOLD_EDGE_PX: Final = (1, 16384)
"""Edges of sizes that a denoiser is told."""
CROP_PX: Final = (0, 4096)
AREA_PX2: Final = 4096 * 4096
IMAGES: Final = (1, 16)
PROMPT_BYTES: Final = 32 * 1024
PROMPT_WINDOWS: Final = 32
"""Most windows of a text encoder, 2,400 tokens of CLIP, that one prompt fills."""
PROMPT_EDITS: Final = 256
"""Most edits by step, such as `[a:b:0.5]`, in all prompts of a pass: each is looked at in each step."""
PROMPT_VARIANTS: Final = 64
"""Most different texts that one prompt becomes in the steps; all are encoded before the first."""
PROMPT_PARTS: Final = 16
"""Most parts of a prompt that AND joins; each adds two rows to a forward."""
BLENDED_PROMPTS: Final = 16
PROMPT_WEIGHT: Final = (-10.0, 10.0)
CLIP_SKIP: Final = (0, 11)
SEED: Final = (0, 2**63 - 1)
COMPONENTS: Final = 16
AESTHETIC: Final = (0.0, 10.0)
REFINER_START: Final = (0.0, 1.0)
HIRES_SCALE: Final = (1.0, 4.0)
DETAIL_PASSES: Final = 8
"""Most passes over what detectors find."""
CONFIDENCE: Final = (0.0, 1.0)
AREA_RATIO: Final = (0.0, 1.0)
FINDS: Final = (1, 100)
"""Findings of a detector that count in a picture."""
TOLD_FINDS: Final = 24
"""Most of them that a result tells of a picture."""
DETAIL_DILATION_PX: Final = (0, 256)
DETAIL_BLUR_PX: Final = (0, 50)
DETAIL_PADDING_PX: Final = (0, 256)
DETAIL_EDGE_PX: Final = (64, 2048)
LORAS: Final = 32
TEXTUAL_INVERSIONS: Final = 32
TOKEN_CHARACTERS: Final = 255
"""Longest word of a prompt that stands for a textual inversion."""
TOKEN_WEIGHT: Final = (0.0, 2.0)
CONTROLS: Final = 8
"""Most ControlNets and T2I adapters of a generation."""
REGIONS: Final = 16
"""Most parts of a picture with prompts of their own."""
REGION_LORAS: Final = 8
"""Most LoRAs of one of them."""
REGION_WEIGHT: Final = (0.0, 10.0)
IMAGE_PROMPTS: Final = 8
"""Most IP-Adapters of a generation."""
PROMPT_IMAGES: Final = (1, 16)
"""Pictures of one IP-Adapter."""
IMAGE_PROMPT_WEIGHT: Final = (0.0, 10.0)
CONTROL_WEIGHT: Final = (0.0, 10.0)
ADAPTER_WEIGHT: Final = (-10.0, 10.0)
BLOCK_WEIGHTS: Final = 64
START_RATIO: Final = (0.0, 0.999)
END_RATIO: Final = (0.001, 1.0)
"""One step of a thousand is the least that can lie between start and end."""
ETA: Final = (0.0, 1.0)
VARIATION: Final = (0.0, 1.0)
SOLVER_ORDER: Final = (1, 3)
FLOW_SHIFT: Final = (0.01, 100.0)
SIGMAS: Final = (0, 1001)
"""Number of noise levels that a request can list: one more than steps."""
SIGMA: Final = (0.0, 1000.0)
TIMESTEPS: Final = (0, 1000)
TIMESTEP: Final = (0, 999)
FIRST_STEP: Final = (0, 999)
LAST_STEP: Final = (1, 1000)
STRENGTH: Final = (0.0, 1.0)
DEFAULT_STRENGTH: Final = 0.75
MASK_BLUR_PX: Final = (0, 50)
MASK_DILATION_PX: Final = (0, 50)
ZOOM_PADDING_PX: Final = (0, 256)
OUTPAINT_PX: Final = (0, 2048)
OVERLAP_PX: Final = (0, 256)
FITS: Final = ("stretch", "cover", "pad")
"""Ways in which a picture to start from is brought to another size."""
INPUT_AREA_PX2: Final = 8192 * 8192
"""Most pixels of a picture that a request hands in."""
INPUT_BYTES: Final = 64 * 1024 * 1024
"""Largest file of such a picture."""
QUALITY: Final = (1, 100)
PREVIEW_EVERY: Final = (0, 1000)
PREVIEW_EDGE_PX: Final = (16, 512)
DEFAULT_PREVIEW_EDGE_PX: Final = 256
DEFAULT_QUALITY: Final = 90
"""Quality of files that have one; equals that of `domains.imaging` (a test checks it)."""
MEDIA_TYPES: Final = (
    *("image/png", "image/jpeg", "image/webp"),
    *(("image/avif",) if find_spec("PIL._avif") else ()),
)
"""The keys of `domains.imaging.MEDIA_TYPES` (a test checks it), without the encoders: the front process only needs the
names, and OpenCV would add a third to its start time."""
LOSSY_MEDIA_TYPES: Final = tuple(name for name in MEDIA_TYPES if name != "image/png")
"""Media types that have a quality; equal those of `domains.imaging` (a test checks it)."""
LOSSLESS: Final = ("image/png", "image/webp")
"""Media types that can keep every pixel."""
BIT_DEPTHS: Final = {"image/png": (0, 8, 16), "image/avif": (0, 8, 10, 12)}
"""Allowed bits per colour channel of a media type; 0: 8. A media type that is not listed has no choice."""
JPEG_PARAMETERS_BYTES: Final = 60_000
"""Limit on both prompts in UTF-16, so that A1111's parameters and the settings fit into one EXIF segment of a JPEG."""
