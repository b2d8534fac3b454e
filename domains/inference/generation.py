"""A generation: what a caller asks for, and what it is resolved to before a device sees it.

Two types, not one full of `None`: `Generation` says what was asked, absent where the caller left the choice to us;
`ResolvedGeneration` has every choice made, and is what the worker runs, the manifest embeds and the result repeats.
"""

from enum import StrEnum

import msgspec

from domains.inference import limits


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to walk from noise to picture, as asked."""

    sampler: str = ""
    """Id from the capability list (`euler`, `dpmpp_2m` …). Empty: the model's own default."""
    sigma_schedule: str = ""
    """Id of the noise levels (`normal`, `karras` …). Empty: the model's own if the sampler takes it, else `normal`."""
    steps: int | None = None
    """1..1000. Absent: the sampler's recommended number."""
    guidance_scale: float | None = None
    """Classifier-free guidance, 0..50; 1 or less switches it off. Absent: the family's default."""
    seed: int | None = None
    """0..2**63-1. Absent: `seeds`, else drawn by the server and reported. Image i of a job uses seed + i."""
    seeds: tuple[int, ...] = ()
    """One an image. Empty: as `seed` says."""
    eta: float | None = None
    """Share of fresh noise in each step, 0..1, for samplers that list it. Absent: 0."""


class Previews(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and how to show the picture while it is made."""

    every_steps: int = 0
    """0: none."""
    max_edge_px: int = limits.DEFAULT_PREVIEW_EDGE_PX
    """Longer edge of a preview, 16..512."""


class ManifestDetail(StrEnum):
    """How much a picture's file says about how it was made."""

    FULL = "full"
    """The whole resolved request, the model's hash, versions and seed."""
    RECIPE = "recipe"
    """The same with the SHA-256 of each prompt in place of its text."""
    NONE = "none"


class EncodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a picture becomes."""

    media_type: str = "image/png"
    """A name of `limits.MEDIA_TYPES`."""
    quality: int | None = None
    """1..100 for JPEG, AVIF and lossy WebP (absent: 90); PNG has none."""
    lossless: bool = False
    """Keep every pixel, in WebP. PNG always does."""
    bit_depth: int = 0
    """Bits a colour; 0: 8."""
    manifest: ManifestDetail = ManifestDetail.FULL
    a1111_parameters: bool = False
    """Write A1111's `parameters` text too. Only with a full manifest, since it holds the prompts."""
    provenance: bool = True
    """Mark the file as made by AI."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A text-to-image request as asked; checked against a model by `resolve`."""

    prompt: str
    negative_prompt: str = ""
    model_id: str = ""
    """Empty: that of `loaded_model_id`, else the default model."""
    loaded_model_id: str = ""
    """The loaded model to run on. Empty: any load of the model, or a new one."""
    width_px: int | None = None
    """Absent: the model's native size."""
    height_px: int | None = None
    image_count: int | None = None
    """Absent: as many as `sampling.seeds` has, else 1."""
    sampling: Sampling = Sampling()
    output: EncodeOptions = EncodeOptions()
    previews: Previews = Previews()


class ResolvedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """Every choice made. The same value on the same model gives the same pictures."""

    model_id: str
    model_sha256: str
    """Over the weights (see `domains.model.fingerprint`): a replay can tell another file by the same id."""
    family: str
    """`sd1`, `sdxl` …"""
    prompt: str
    negative_prompt: str
    width_px: int
    height_px: int
    sampler: str
    sigma_schedule: str
    steps: int
    guidance_scale: float
    eta: float | None
    """None: the sampler does not read it."""
    seeds: tuple[int, ...]
    """One a picture; their number is the number of pictures."""
    output: EncodeOptions
    previews: Previews
