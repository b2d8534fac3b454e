"""The second pass of A1111's text ("hires fix"). The denoising strength is a share of its steps, as here."""

from collections.abc import Mapping

from domains.inference.a1111 import LATENTS, PIXELS
from domains.inference.hires import HiresPass
from domains.inference.recipes.names import of_a1111
from domains.inference.recipes.numbers import number, size_of

_LATENT, _PIXEL = ({name.casefold(): by for by, name in names.items()} for names in (LATENTS, PIXELS))
_NO_UPSCALER = "none"
"""A1111 then enlarges the pixels by Lanczos."""
STRENGTH = "Denoising strength"
_UPSCALER = "Hires upscaler"
_TARGETS = ("Hires upscale", "Hires resize")
READ = (
    *(STRENGTH, _UPSCALER, *_TARGETS, "Hires steps", "Hires CFG Scale", "Hires sampler", "Hires schedule type"),
    *("Hires prompt", "Hires negative prompt"),
)


def has_hires(settings: Mapping[str, str]) -> bool:
    """Whether the settings are of a picture with a second pass."""
    return any(name in settings for name in _TARGETS)


def upscaler_of(settings: Mapping[str, str]) -> str:
    """The upscaler model that the settings name. Empty: a filter enlarges, or there is no second pass."""
    name = settings.get(_UPSCALER, "")
    known = {*_LATENT, *_PIXEL, _NO_UPSCALER}
    return "" if not has_hires(settings) or name.casefold() in known else name


def hires_of(settings: Mapping[str, str]) -> HiresPass | None:
    """The second pass, without an upscaler model. Raises BAD_IMAGE for a value that is no number."""
    if not has_hires(settings):
        return None
    by, size = settings.get(_UPSCALER, "Latent").casefold(), size_of(settings.get("Hires resize", ""))
    sampler, schedule = of_a1111(settings.get("Hires sampler", ""), settings.get("Hires schedule type", ""))
    return HiresPass(
        scale=None if size else number(settings.get("Hires upscale", "2"), float, "Hires upscale"),
        size_px=size,
        latent_filter=_LATENT.get(by),
        pixel_filter=None if by in _LATENT else _PIXEL.get(by, next(iter(PIXELS))),
        strength=number(settings[STRENGTH], float, STRENGTH) if STRENGTH in settings else None,
        steps=(number(settings["Hires steps"], int, "Hires steps") or None) if "Hires steps" in settings else None,
        sampler=sampler,
        sigma_schedule=schedule,
        guidance_scale=number(settings["Hires CFG Scale"], float, "Hires CFG Scale")
        if "Hires CFG Scale" in settings
        else None,
        prompt=settings.get("Hires prompt", ""),
        negative_prompt=settings.get("Hires negative prompt", ""),
    )
