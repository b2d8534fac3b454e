"""Whether the parts of a model fit each other, by their configs: what one gives, the next must take."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from domains.errors import ErrorReason, FailedPrecondition

Configs = Mapping[str, Any]
"""Objects with the values of each config.json as attributes, by component id; only of the components that the model has."""


class _Fit(NamedTuple):
    """A width that two configs must agree on. A reader returns None where the model does not say it."""

    part: str
    field: str
    has: Callable[[Configs], int | None]
    other: str
    wanting: str
    wants: Callable[[Configs], int | None]


_MOST = 2**31
"""A config, which can come from anywhere, means no width with a number beyond."""


def _width(configs: Configs, part: str, field: str) -> int | None:
    """The number that a config says. None: it says none."""
    found = getattr(configs.get(part), field, None)
    return found if isinstance(found, int) and 0 <= found < _MOST else None


def _of(part: str, field: str) -> Callable[[Configs], int | None]:
    return lambda configs: _width(configs, part, field)


def _sum(field: str, *parts: str) -> Callable[[Configs], int | None]:
    def total(configs: Configs) -> int | None:
        widths = [_width(configs, part, field) for part in parts]
        return sum(width for width in widths if width is not None) if None not in widths else None

    return total


def _latents_of(denoiser: str) -> Callable[[Configs], int | None]:
    """Channels of the latents among the inputs; a model made for inpainting or editing reads more."""
    inputs, outputs = _of(denoiser, "in_channels"), _of(denoiser, "out_channels")

    def latents(configs: Configs) -> int | None:
        read, made = inputs(configs), outputs(configs)
        # Stable Diffusion: a picture, and one channel of mask; or one of depth. FLUX.1: a picture and 64 channels for each
        # token's four.
        return made if made is not None and read in (2 * made, 2 * made + 1, 2 * made + 256, made + 1) else read

    return latents


def _both(denoiser: str) -> _Fit:
    """The VAE's latents are what the denoiser reads."""
    vae = _of("vae", "latent_channels")
    return _Fit("vae", "latent_channels", vae, denoiser, "in_channels", _latents_of(denoiser))


def _read(part: str, field: str, has: Callable[[Configs], int | None], denoiser: str, wanting: str) -> _Fit:
    return _Fit(part, field, has, denoiser, wanting, _of(denoiser, wanting))


_TEXT, _TEXT_2, _TEXT_3 = "text_encoder", "text_encoder_2", "text_encoder_3"
_UNET = (_read(_TEXT, "hidden_size", _of(_TEXT, "hidden_size"), "unet", "cross_attention_dim"), _both("unet"))


def _numbers(count: int) -> Callable[[Configs], int | None]:
    """Pooled text and so many numbers (Podell et al. 2023)."""

    def width(configs: Configs) -> int | None:
        pooled, each = _width(configs, _TEXT_2, "projection_dim"), _width(configs, "unet", "addition_time_embed_dim")
        return None if pooled is None or each is None else pooled + count * each

    return width


def _packed(configs: Configs) -> int | None:
    """2×2 latent pixels are one token."""
    channels = _width(configs, "vae", "latent_channels")
    return None if channels is None else 4 * channels


_FITS: Mapping[str, tuple[_Fit, ...]] = {
    "sd1": _UNET,
    "sd2": _UNET,
    "sdxl": (
        _read(_TEXT_2, "hidden_size", _sum("hidden_size", _TEXT, _TEXT_2), "unet", "cross_attention_dim"),
        _read(_TEXT_2, "projection_dim", _numbers(6), "unet", "projection_class_embeddings_input_dim"),
        _both("unet"),
    ),
    "sdxl_refiner": (
        _read(_TEXT_2, "hidden_size", _of(_TEXT_2, "hidden_size"), "unet", "cross_attention_dim"),
        _read(_TEXT_2, "projection_dim", _numbers(5), "unet", "projection_class_embeddings_input_dim"),
        _both("unet"),
    ),
    "sd3": (
        _read(
            _TEXT_2, "projection_dim", _sum("projection_dim", _TEXT, _TEXT_2), "transformer", "pooled_projection_dim"
        ),
        _read(_TEXT_3, "d_model", _of(_TEXT_3, "d_model"), "transformer", "joint_attention_dim"),
        _both("transformer"),
    ),
    "flux1": (
        _read(_TEXT, "hidden_size", _of(_TEXT, "hidden_size"), "transformer", "pooled_projection_dim"),
        _read(_TEXT_2, "d_model", _of(_TEXT_2, "d_model"), "transformer", "joint_attention_dim"),
        _Fit("vae", "latent_channels", _packed, "transformer", "in_channels", _latents_of("transformer")),
    ),
    "chroma": (
        _read(_TEXT, "d_model", _of(_TEXT, "d_model"), "transformer", "joint_attention_dim"),
        _Fit("vae", "latent_channels", _packed, "transformer", "in_channels", _of("transformer", "in_channels")),
    ),
    "auraflow": (
        _read(_TEXT, "d_model", _of(_TEXT, "d_model"), "transformer", "joint_attention_dim"),
        _both("transformer"),
    ),
    "z_image": (
        _read(_TEXT, "hidden_size", _of(_TEXT, "hidden_size"), "transformer", "cap_feat_dim"),
        _both("transformer"),
    ),
}
"""By family. One that is not here checks nothing."""


def check_fit(family: str, configs: Configs) -> None:
    """Raise MODEL_INCOMPATIBLE if one part's output does not fit the next part: every job would fail."""
    for fit in _FITS.get(family, ()):
        has, wants = fit.has(configs), fit.wants(configs)
        if wants is not None and has is not None and has != wants:
            message = (
                f"{fit.part}/config.json has {fit.field}={has}, and {fit.other}/config.json {fit.wanting}={wants}:"
                " they do not fit"
            )
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, component=fit.part, field=fit.field)
