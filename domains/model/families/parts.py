"""Components that many families have, as facts."""

from domains.model.families.family import Part
from domains.model.kind import ModelKind

CLIP_TOKENS = 77
"""CLIP's context length, start and end included (Radford et al. 2021)."""

_DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")


def denoiser(name: str, class_name: str) -> Part:
    """The denoiser, `unet` or `transformer`."""
    return Part(id=name, kind=ModelKind.DENOISER, classes=(class_name,), prefixes=(*_DENOISER_PREFIXES, f"{name}."))


def vae(class_name: str = "AutoencoderKL") -> Part:
    """The VAE."""
    return Part(id="vae", kind=ModelKind.VAE, classes=(class_name,), prefixes=("first_stage_model.", "vae."))


def text_encoder(number: int, classes: tuple[str, ...], tokens: int, *prefixes: str, optional: bool = False) -> Part:
    """The text encoder `number`, from 1; `prefixes`: beginnings of its tensors in single files."""
    name = _numbered("text_encoder", number)
    kind = ModelKind.TEXT_ENCODER
    return Part(id=name, kind=kind, classes=classes, tokens=tokens, prefixes=(*prefixes, f"{name}."), optional=optional)


def tokenizer(number: int = 1, *classes: str, optional: bool = False) -> Part:
    """The tokenizer of the text encoder `number`."""
    return Part(id=_numbered("tokenizer", number), kind=ModelKind.TOKENIZER, classes=classes, optional=optional)


def scheduler() -> Part:
    """The scheduler. Its class is free: `sampler_names` says which samplers stand for it."""
    return Part(id="scheduler", kind=ModelKind.SCHEDULER)


CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
