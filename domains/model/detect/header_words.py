"""Reads what a file's own metadata claims: the keys of ModelSpec (Stability AI) and of kohya's trainer."""

import re
from collections.abc import Mapping

import msgspec

_ARCHITECTURES = (
    ("stable-diffusion-xl-v1-refiner", "sdxl_refiner"),
    ("stable-diffusion-xl", "sdxl"),
    ("stable-diffusion-v1", "sd1"),
    ("stable-diffusion-v2", "sd2"),
    ("stable-diffusion-v3", "sd3"),
    ("stable-diffusion-3", "sd3"),
    ("flux-1", "flux1"),
    ("flux.1", "flux1"),
    ("chroma", "chroma"),
    ("qwen-image", "qwen_image"),
    ("lumina-2", "lumina2"),
    ("auraflow", "auraflow"),
    ("kolors", "kolors"),
)
"""Beginnings of `modelspec.architecture`."""
_BASES = (
    ("sd_v1", "sd1"),
    ("sd_v2", "sd2"),
    ("sdxl", "sdxl"),
    ("sd3", "sd3"),
    ("flux1", "flux1"),
    ("lumina2", "lumina2"),
)
"""Beginnings of `ss_base_model_version`."""
_DISTILLED = ("turbo", "lightning", "lcm", "hyper")
_SAYS_DISTILLED = ("modelspec.title", "modelspec.architecture", "modelspec.tags", "modelspec.description")
_PREDICTIONS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata claims. Nothing in it is proof."""

    family: str = ""
    variant: str = ""
    """`turbo`, `lightning`, `lcm`, `hyper`; empty: it names none."""
    prediction_type: str = ""
    version: str = ""
    keys: tuple[str, ...] = ()
    """`key=value` of the family's claim."""


def words(metadata: Mapping[str, str]) -> Words:
    """Read the metadata of a header."""
    architecture = metadata.get("modelspec.architecture", "").lower()
    base = metadata.get("ss_base_model_version", "").lower()
    keys = tuple(
        f"{key}={metadata[key][:64]}" for key in ("modelspec.architecture", "ss_base_model_version") if key in metadata
    )
    return Words(
        family=_first(_ARCHITECTURES, architecture) or _first(_BASES, base),
        variant=_distilled(metadata),
        prediction_type=_prediction(metadata, architecture),
        version=metadata.get("modelspec.version", "")[:64] or metadata.get("version", "")[:64],
        keys=keys,
    )


def _first(table: tuple[tuple[str, str], ...], text: str) -> str:
    return next((family for start, family in table if text.startswith(start)), "")


def _distilled(metadata: Mapping[str, str]) -> str:
    said = " ".join(metadata.get(key, "") for key in _SAYS_DISTILLED).lower()
    parts = set(re.findall(r"[a-z]+", said))
    return next((name for name in _DISTILLED if name in parts), "")


def _prediction(metadata: Mapping[str, str], architecture: str) -> str:
    told = metadata.get("modelspec.prediction_type", metadata.get("modelspec.predict_key", "")).lower()
    if told:
        return _PREDICTIONS.get(told, "")
    # kohya's trainer writes booleans as Python does: True.
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        return "v_prediction"
    return "v_prediction" if architecture.startswith("stable-diffusion-v2-768-v") else ""
