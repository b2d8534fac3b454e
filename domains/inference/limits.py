"""What a generation may ask for. One place, so that the check, the capability list and the contract's comments agree."""

from typing import Final

STEPS: Final = (1, 1000)
GUIDANCE: Final = (0.0, 50.0)
EDGE_PX: Final = (64, 4096)
EDGE_MULTIPLE_PX: Final = 8
AREA_PX2: Final = 4096 * 4096
IMAGES: Final = (1, 16)
PROMPT_BYTES: Final = 32 * 1024
SEED: Final = (0, 2**63 - 1)
ETA: Final = (0.0, 1.0)
QUALITY: Final = (1, 100)
PREVIEW_EVERY: Final = (0, 1000)
PREVIEW_EDGE_PX: Final = (16, 512)
DEFAULT_PREVIEW_EDGE_PX: Final = 256
DEFAULT_QUALITY: Final = 90
"""That of `domains.imaging` (a test says so), for files with a quality."""
LOSSY_MEDIA_TYPES: Final = ("image/jpeg", "image/webp")
"""Those of `domains.imaging` that have a quality (a test says so)."""
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
"""The keys of `domains.imaging.MEDIA_TYPES` (a test says so), without the encoders behind them: the front process only
needs the names, and OpenCV would add a third to its start."""
DEFAULT_GUIDANCE: Final = 5.0
"""Where the request names none. Between the 3 and 7.5 at which the embedded model and SD 1.x are at their best."""
