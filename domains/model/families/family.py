"""The facts of a model family, as values."""

from collections.abc import Mapping
from typing import Any

import msgspec

from domains.model.families.sign import Layout, Sign
from domains.model.kind import ModelKind


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A component of a family's models."""

    id: str
    """The folder's name in a diffusers layout: `unet`."""
    kind: ModelKind
    classes: tuple[str, ...] = ()
    """Classes of diffusers or transformers that can fill it."""
    optional: bool = False
    """Whether a model works without it."""
    tokens: int = 0
    """Tokens that a text encoder reads, start and end included; 0: it reads no text."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of its tensors' names in single files."""

    @property
    def has_weights(self) -> bool:
        """Whether a file of tensors belongs to it."""
        return self.kind not in (ModelKind.TOKENIZER, ModelKind.SCHEDULER)


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a family that has other inputs or other defaults."""

    name: str
    """`inpainting`, `editing`, `depth`, `schnell` …"""
    signs: Mapping[str, tuple[Sign, ...]] = {}
    """By layout: tensors that prove it. Empty: tensors cannot tell it."""
    absent: Mapping[str, tuple[str, ...]] = {}
    """By layout: beginnings of tensor names that the family has and the variant does not."""
    config: Mapping[str, Any] = {}
    """Values of the denoiser's config.json that prove it."""
    pipelines: tuple[str, ...] = ()
    """Classes in model_index.json that prove it."""
    tasks: tuple[str, ...] = ("text_to_image",)
    guidance: float | None = None
    """Default guidance; None: the family's."""
    distilled_guidance: float | None = None
    """Default embedded guidance; None: the family's."""
    references: tuple[int, int] = (0, 0)
    """Least and most pictures that its denoiser sees beside the prompt."""
    image_guidance: float | None = None
    """Default guidance by such a picture; None: it has no guidance of that kind."""
    reads_distilled: bool = True
    """Whether its denoiser reads embedded guidance, if those of the family do."""
    steps: int | None = None
    """Default number of steps; None: the sampler's."""
    computed: bool = False
    """Whether the engine computes it, as `Family.computed`."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All facts about a family: one entry for the scan, the checks, the capability list, the loader and the engine."""

    id: str
    """`sd1`, `sdxl` …"""
    display_name: str
    base: str = ""
    """Family whose network this one changes. Empty: none."""
    kind: ModelKind = ModelKind.CHECKPOINT
    """Kind of a whole model."""
    parts: tuple[Part, ...]
    """Components in loading order."""
    layouts: tuple[Layout, ...]
    """What proves the denoiser by its tensors."""
    config: Mapping[str, Any] = {}
    """Values that the denoiser's config.json must have; None: absent, null or false; a tuple: one of these."""
    config_keys: tuple[str, ...] = ()
    """Tensors, in the layout of diffusers, that a denoiser with such a config must have."""
    config_without: tuple[str, ...] = ()
    """Beginnings of tensor names that it must not have."""
    variants: tuple[Variant, ...] = ()
    native_px: int
    """Edge of the pictures that published models were trained on; counts where a model's files do not say."""
    alignment_px: int
    """Edges of pictures are multiples of this."""
    prompt_tokens: int
    """Tokens of a prompt that the denoiser reads, start and end included."""
    clip_tokens: int = 0
    """Tokens of CLIP that the denoiser reads beside these."""
    reads_windows: bool = False
    """Whether it reads prompts by CLIP alone, window by window: then words have weights, and layers can be left out."""
    reads_sizes: bool = False
    """Whether its denoiser was trained with the sizes of pictures, and reads them."""
    default_guidance: float
    """Guidance of a request that names none."""
    guidance_off: float = 1.0
    """Largest guidance at which the negative prompt is not used, because guidance is off."""
    distilled_guidance: float | None = None
    """Embedded guidance of a request that names none. None: its denoisers read no guidance."""
    prediction_types: tuple[str, ...]
    """What denoisers of the family predict, the usual one first."""
    patch_size: int = 2
    """Edge of the square of latent pixels that a transformer reads as one token."""
    even_sigmas: bool = False
    """Whether a flow model's schedule starts from n evenly spaced sigmas, 1 to 1/n, whatever levels it was trained with."""
    latent_channels: int
    tasks: tuple[str, ...] = ("text_to_image",)
    learned_words: Mapping[str, str] = {}
    """Tensors of a textual inversion's file → the text encoders that read them. An empty name: the file's only tensor.
    Empty: the engine reads none with this family."""
    joins_maps: bool = False
    """Whether its union ControlNets read several maps in one forward. Those of FLUX.1 read each alone, as in diffusers."""
    completes_maps: bool = False
    """Whether its ControlNets read a map and a picture with a missing part in one forward, as diffusers does."""
    embeds_for_controls: bool = False
    """Whether its ControlNets have no layer of their own that reads prompts: they compute with the model's."""
    computed: bool = False
    """Whether the engine computes it. A test holds it equal to the engine's own table."""

    @property
    def flow(self) -> bool:
        """Whether its models are flow models, whose latents are (1 − σ)·clean + σ·noise."""
        return self.prediction_types == ("flow",)

    @property
    def denoiser(self) -> Part:
        """The component that removes noise."""
        return next(part for part in self.parts if part.kind is ModelKind.DENOISER)

    @property
    def needs(self) -> tuple[str, ...]:
        """Components without which a model does not work."""
        return tuple(part.id for part in self.parts if not part.optional)

    @property
    def text_encoders(self) -> int:
        """How many text encoders read a prompt."""
        return sum(part.kind is ModelKind.TEXT_ENCODER for part in self.parts)

    @property
    def edits(self) -> bool:
        """Whether the engine computes models of it that see a picture beside the prompt: made for editing, or for a map."""
        return any(variant.references[1] and variant.computed for variant in self.variants)

    @property
    def image_guidance(self) -> float | None:
        """Default guidance by the picture that such models see; None: they have none of that kind."""
        return next((one.image_guidance for one in self.variants if one.image_guidance is not None), None)

    def part(self, component: str) -> Part | None:
        """The component with this id; None: the family has none."""
        return next((part for part in self.parts if part.id == component), None)

    def variant(self, name: str) -> Variant | None:
        """The variant with this name."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def reads_negative(self, guidance: float) -> bool:
        """Whether the denoiser also computes the negative prompt at this guidance."""
        return guidance > self.guidance_off
