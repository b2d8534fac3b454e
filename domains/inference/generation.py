"""A generation: the caller's request, and the resolved request that a device receives.

Two types, not one full of `None`: `Generation` holds the request, absent where the caller left the choice to the
server; `ResolvedGeneration` has every choice made: the worker runs it, the manifest and the result contain it.
"""

import math
from collections.abc import Callable
from enum import StrEnum

import msgspec

from domains.inference import limits
from domains.inference.components import ComponentSource, ResolvedComponent
from domains.inference.controls import Control, ResolvedControl
from domains.inference.details import DetailPass, ResolvedDetail
from domains.inference.hires import HiresPass, ResolvedHires
from domains.inference.image_prompts import ImagePrompt, ResolvedImagePrompt
from domains.inference.init_image import InitImage, ResolvedInitImage
from domains.inference.latents import InitLatents, ResolvedLatents
from domains.inference.loras import Lora, ResolvedLora
from domains.inference.masks import InpaintMask, Outpaint, ResolvedMask, ResolvedOutpaint, steps_of
from domains.inference.own_walk import AS_THE_MODEL, OwnWalk
from domains.inference.prompts import LongPrompt, Prompt, Syntax
from domains.inference.references import Reference, ResolvedReference
from domains.inference.refiner import RefinerPass, ResolvedRefiner
from domains.inference.regions import Region, ResolvedRegion
from domains.inference.seed_variation import ResolvedSeedVariation, SeedVariation
from domains.inference.size_conditioning import SizeConditioning
from domains.inference.step_range import ALL_STEPS, StepRange, own_part
from domains.inference.textual_inversions import ResolvedTextualInversion, TextualInversion
from domains.model.assembly import assembled_id

_ROUNDING = 1e-6


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """The path from noise to picture, as requested."""

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
    """One seed per image. Empty: see `seed`."""
    eta: float | None = None
    """Share of fresh noise in each step, 0..1, for samplers that list it. Absent: 0."""
    distilled_guidance: float | None = None
    """Embedded guidance, 0..50, of models that were distilled with it. Absent: the model's default."""
    image_guidance_scale: float | None = None
    """Guidance by the picture that a model made for editing sees, 0..50. Absent: the model's default."""
    guidance_rescale: float | None = None
    """How much the contrast of guidance is pulled back, 0..1. Absent: 0."""
    dynamic_threshold_ratio: float | None = None
    """Percentile of dynamic thresholding, of models that compute in pixels. Absent: none."""
    guidance_start_ratio: float | None = None
    """Share of the steps after which guidance begins, 0..1. Absent: 0."""
    guidance_end_ratio: float | None = None
    """Share of the steps after which it ends, more than its start. Absent: 1."""
    seed_variation: SeedVariation | None = None
    """A second seed that varies each picture. Absent: none."""
    own: OwnWalk = AS_THE_MODEL
    """Noise levels and solver options of the request's own."""
    part: StepRange = ALL_STEPS
    """Which of the steps are computed."""


class Previews(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and how to send previews while the picture is made."""

    every_steps: int = 0
    """Interval in steps. 0: no previews."""
    max_edge_px: int = limits.DEFAULT_PREVIEW_EDGE_PX
    """Longer edge of a preview, 16..512."""


class Determinism(StrEnum):
    """How exactly the same request gives the same picture."""

    FAST = "fast"
    """The same noise and steps. Jobs share forwards, whose rounding differs with the jobs beside it."""
    EXACT = "exact"
    """Bit for bit the same, whatever else runs: the job has forwards of its own."""


class ManifestDetail(StrEnum):
    """Amount of detail in a picture's file about its making."""

    FULL = "full"
    """The whole resolved request, the model's hash, versions and seed."""
    RECIPE = "recipe"
    """The same with the SHA-256 of each prompt in place of its text."""
    NONE = "none"


class EncodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Format of a picture's file."""

    media_type: str = "image/png"
    """A name of `limits.MEDIA_TYPES`."""
    quality: int | None = None
    """1..100 for JPEG, AVIF and lossy WebP (absent: 90); PNG has none."""
    lossless: bool = False
    """Keep every pixel, in WebP. PNG always keeps every pixel."""
    bit_depth: int = 0
    """Bits per colour channel; 0: 8."""
    manifest: ManifestDetail = ManifestDetail.FULL
    a1111_parameters: bool = False
    """Write A1111's `parameters` text too. Only with a full manifest, since it holds the prompts."""
    provenance: bool = True
    """Mark the file as made by AI."""


class WeightedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that blends with the main one, whose weight is 1."""

    prompt: str
    weight: float | None = None
    """-10..10. Absent: 1."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A request for pictures, from text alone or from a picture too; `resolve` checks it against a model."""

    prompt: str
    negative_prompt: str = ""
    model_id: str = ""
    """Empty: the model of `loaded_model_id`, else the default model."""
    loaded_model_id: str = ""
    """The loaded model to run on. Empty: any load of the model, or a new one."""
    width_px: int | None = None
    """Absent: the model's native size."""
    height_px: int | None = None
    image_count: int | None = None
    """Absent: the number of `sampling.seeds`, else 1."""
    sampling: Sampling = Sampling()
    output: EncodeOptions = EncodeOptions()
    previews: Previews = Previews()
    determinism: Determinism = Determinism.FAST
    init_image: InitImage | None = None
    """Absent: start from noise."""
    mask: InpaintMask | None = None
    """The part of the picture to make anew. Absent: all of it."""
    outpaint: Outpaint | None = None
    """How far the picture grows. Absent: not at all."""
    seamless_x: bool = False
    """Whether left and right edges fit together."""
    seamless_y: bool = False
    """Whether upper and lower edges fit together."""
    loras: tuple[Lora, ...] = ()
    textual_inversions: tuple[TextualInversion, ...] = ()
    controls: tuple[Control, ...] = ()
    image_prompts: tuple[ImagePrompt, ...] = ()
    regions: tuple[Region, ...] = ()
    references: tuple[Reference, ...] = ()
    """Pictures that a model made for editing sees beside the prompt."""
    prompt_syntax: Syntax = Syntax.PLAIN
    long_prompt: LongPrompt = LongPrompt.TRUNCATE
    second_prompt: str = ""
    """For the second text encoder. Empty: `prompt`."""
    second_negative_prompt: str = ""
    third_prompt: str = ""
    third_negative_prompt: str = ""
    clip_skip: int | None = None
    """0..11 last layers of the CLIP text encoders to leave out. Absent: 0."""
    blended_prompts: tuple[WeightedPrompt, ...] = ()
    size_conditioning: SizeConditioning | None = None
    """What the denoiser is told about sizes. Absent: the size that is made, nothing cropped."""
    components: tuple[ComponentSource, ...] = ()
    """Components that are other than the model's own."""
    hires_pass: HiresPass | None = None
    """A second pass at a larger size. Absent: none."""
    detail_passes: tuple[DetailPass, ...] = ()
    """Passes over what a detector finds in the finished picture, in this order."""
    refiner: RefinerPass | None = None
    """A refiner for the last steps. Absent: none."""
    init_latents: InitLatents | None = None
    """Latents to start from. Absent: a picture, or noise."""
    return_latents: bool = False
    """Whether to hand out the latents of the first pass."""


class ResolvedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """A generation with every choice made. The same value on the same model gives the same pictures."""

    model_id: str
    model_sha256: str
    """Hash over the weights (see `domains.model.fingerprint`): a replay detects another model with the same id."""
    family: str
    """`sd1`, `sdxl` …"""
    prompt: str
    negative_prompt: str
    width_px: int
    height_px: int
    sampler: str
    sigma_schedule: str
    """Empty: `own` has the noise levels."""
    steps: int
    guidance_scale: float
    eta: float | None
    """None: the sampler does not use it."""
    seeds: tuple[int, ...]
    """One seed per picture."""
    output: EncodeOptions
    previews: Previews
    determinism: Determinism = Determinism.FAST
    init_image: ResolvedInitImage | None = None
    """None: the pictures start from noise."""
    mask: ResolvedMask | None = None
    """None: the whole picture is made anew."""
    outpaint: ResolvedOutpaint | None = None
    """None: the picture does not grow. Width and height are those of the grown picture."""
    seamless_x: bool = False
    seamless_y: bool = False
    loras: tuple[ResolvedLora, ...] = ()
    """Applied together; their order does not matter."""
    textual_inversions: tuple[ResolvedTextualInversion, ...] = ()
    controls: tuple[ResolvedControl, ...] = ()
    """ControlNets and T2I adapters that guide the layout; their effects add up."""
    image_prompts: tuple[ResolvedImagePrompt, ...] = ()
    """IP-Adapters that guide content and style; their effects add up."""
    regions: tuple[ResolvedRegion, ...] = ()
    """Parts of the picture with prompts of their own."""
    references: tuple[ResolvedReference, ...] = ()
    """Pictures that the model sees beside the prompt, in this order."""
    prompt_syntax: Syntax = Syntax.PLAIN
    long_prompt: LongPrompt = LongPrompt.TRUNCATE
    second_prompt: str = ""
    second_negative_prompt: str = ""
    third_prompt: str = ""
    third_negative_prompt: str = ""
    clip_skip: int = 0
    blended_prompts: tuple[WeightedPrompt, ...] = ()
    """Each with its weight."""
    seed_variation: ResolvedSeedVariation | None = None
    """None: the seeds alone."""
    distilled_guidance: float | None = None
    """Embedded guidance. None: the model reads none."""
    image_guidance_scale: float | None = None
    """Guidance by the picture that the model sees. None: it has no guidance of that kind."""
    guidance_rescale: float = 0.0
    """How much the contrast of guidance is pulled back."""
    guidance_start_ratio: float = 0.0
    guidance_end_ratio: float = 1.0
    size_conditioning: SizeConditioning | None = None
    """None: the size that is made, nothing cropped."""
    own: OwnWalk = AS_THE_MODEL
    """Noise levels and solver options of the request's own."""
    part: StepRange = ALL_STEPS
    """Which of the steps are computed, where the strength alone does not say it."""
    components: tuple[ResolvedComponent, ...] = ()
    """Components that are other than the model's own, in order of their names."""
    init_latents: ResolvedLatents | None = None
    """Latents to start from. None: a picture, or noise."""
    hires_pass: ResolvedHires | None = None
    """None: there is no second pass."""
    detail_passes: tuple[ResolvedDetail, ...] = ()
    """Passes over what a detector finds in the finished picture, in this order."""
    return_latents: bool = False
    """Whether the latents of the first pass are handed out."""
    refiner: ResolvedRefiner | None = None
    """None: the model computes all steps."""
    within: tuple[int, int] | None = None
    """See `place`. None: no other pass shares its walk."""
    aesthetic_scores: tuple[float, float] | None = None
    """Aesthetic scores of the prompt and of the negative prompt in a refiner's pass. None: the denoiser reads none."""

    @property
    def runs_as(self) -> str:
        """Id of the model that the device loads: the model, with the components that are other than its own."""
        return assembled_id(self.model_id, {one.component_id: one.model_id for one in self.components})

    @property
    def guided_steps(self) -> range:
        """The computed steps, from 0, in which guidance counts."""
        ratios = self.guidance_start_ratio, self.guidance_end_ratio
        return self.counted(lambda count: range(*(math.ceil(count * ratio - _ROUNDING) for ratio in ratios)))

    @property
    def place(self) -> tuple[int, int]:
        """(computed steps before this pass, computed steps of all passes) of the walk that its passes share. Ranges count
        the steps of all of them."""
        return self.within or (0, self.computed_steps)

    def counted(self, steps_of: Callable[[int], range]) -> range:
        """The steps of this pass, from 0, of those that `steps_of` selects among all steps of the walk."""
        begin, whole = self.place
        return own_part(steps_of(whole), begin, self.computed_steps)

    @property
    def positive(self) -> Prompt:
        """The prompt as text encoders read it."""
        return self._prompt(self.prompt, self.second_prompt, self.third_prompt)

    @property
    def negative(self) -> Prompt:
        """The negative prompt as text encoders read it."""
        return self._prompt(self.negative_prompt, self.second_negative_prompt, self.third_negative_prompt)

    @property
    def empty(self) -> Prompt:
        """An empty prompt with the generation's reading options."""
        return self._prompt("")

    @property
    def blended(self) -> tuple[tuple[Prompt, float], ...]:
        """The prompts that blend with the positive one, with their weights."""
        return tuple(
            (self._prompt(one.prompt), 1.0 if one.weight is None else one.weight) for one in self.blended_prompts
        )

    def prompt_of(self, text: str) -> Prompt:
        """One text for all encoders, with the generation's reading options."""
        return self._prompt(text)

    def _prompt(self, *texts: str) -> Prompt:
        return Prompt(texts=texts, syntax=self.prompt_syntax, long=self.long_prompt, clip_skip=self.clip_skip)

    @property
    def control_blobs(self) -> tuple[str, ...]:
        """Ids of the blobs with the pictures of its controls, each once."""
        pictures = (picture for one in self.controls for picture in (one.image, one.region))
        return tuple(dict.fromkeys(picture.blob_id for picture in pictures if picture is not None))

    @property
    def start_strength(self) -> float:
        """Share of the steps that is computed: less than 1 only from latents, or from a picture that does not grow."""
        start = self.init_latents or self.init_image
        return 1.0 if start is None or self.outpaint is not None else start.strength

    @property
    def all_loras(self) -> tuple[ResolvedLora, ...]:
        """Its LoRAs, then those of its regions."""
        return (*self.loras, *(lora for region in self.regions for lora in region.loras))

    @property
    def region_blobs(self) -> tuple[str, ...]:
        """Ids of the blobs with the masks of its regions."""
        return tuple(one.mask.blob_id for one in self.regions if one.mask is not None)

    @property
    def image_prompt_blobs(self) -> tuple[str, ...]:
        """Ids of the blobs with the pictures of its image prompts, each once."""
        return tuple(dict.fromkeys(used.blob_id for one in self.image_prompts for _, used in one.pictures()))

    @property
    def visited(self) -> range:
        """The computed steps of the first pass, from 0: the last ⌈steps × strength⌉, unless `part` selects others."""
        return self.part.visited(self.steps, steps_of(self.start_strength, self.steps))

    @property
    def computed_steps(self) -> int:
        """Number of steps that are computed."""
        return len(self.visited)

    @property
    def result_px(self) -> tuple[int, int]:
        """(width, height) of the result: the size that is made last, unless what is made is put back into a picture of
        another size."""
        if self.hires_pass is not None:
            return self.hires_pass.width_px, self.hires_pass.height_px
        own = None if self.init_image is None else self.init_image.own_size_px
        return own or (self.width_px, self.height_px)

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether left and right edges fit together, and upper and lower ones."""
        return self.seamless_x, self.seamless_y

    @property
    def before_px(self) -> tuple[int, int]:
        """(width, height) before the picture grows."""
        if self.outpaint is None:
            return self.width_px, self.height_px
        return self.width_px - self.outpaint.across_px, self.height_px - self.outpaint.down_px

    @property
    def input_px(self) -> tuple[int, int]:
        """(width, height) to which the pictures that the request hands in are brought."""
        own = None if self.init_image is None else self.init_image.own_size_px
        return own or self.before_px

    @property
    def input_blobs(self) -> tuple[str, ...]:
        """Ids of the blobs with the pictures that the request hands in."""
        starts = (self.init_image, self.mask, self.init_latents)
        own = (one.blob_id for one in starts if one is not None)
        seen = dict.fromkeys(one.image.blob_id for one in self.references)
        return (*own, *self.control_blobs, *self.image_prompt_blobs, *self.region_blobs, *seen)
