"""Finds the faults of the latents that a generation starts from, and makes their choices."""

from collections.abc import Iterator

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation
from domains.inference.latents import ReadLatents, ResolvedLatents
from domains.inference.step_range import StepRange
from domains.model.component_config import read_config
from domains.model.model import Model

_PATH = "generation.init_latents"
_CHANNELS = 4
"""Channels of latents where the VAE's config does not say them."""
_LEVELS = 16
"""No VAE has so many."""


def latent_violations(asked: Generation) -> Iterator[Violation]:
    """Fields that are wrong by themselves."""
    given = asked.init_latents
    if given is None:
        return
    if not given.blob_id:
        yield Violation(field=f"{_PATH}.blob_id", message="must not be empty; name the blob with the latents")
    yield from within("init_latents.strength", given.strength)


def latent_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that exclude each other."""
    given, init = asked.init_latents, asked.init_image
    if given is not None and init is not None:
        text = "a walk starts from latents or from a picture; leave `init_latents` or `init_image` out"
        yield Violation(field=_PATH, message=text)
    if given is not None and given.strength is not None and asked.sampling.part.first_step is not None:
        text = "the strength of init_latents says which step is the first; leave one of the two out"
        yield Violation(field="generation.sampling.first_step", message=text)
    if asked.return_latents and init is not None and init.strength == 0:
        text = "without strength the picture is given back, which has no latents; leave one of the two out"
        yield Violation(field="generation.return_latents", message=text)


def part_with(asked: Generation) -> StepRange:
    """The part of the steps: latents that are handed over in mid-walk hold their noise already."""
    part = asked.sampling.part
    if asked.init_latents is None or part.first_step is None or part.add_noise is not None:
        return part
    return StepRange(first_step=part.first_step, last_step=part.last_step, add_noise=False)


def resolved_latents(
    asked: Generation, read: ReadLatents | None, model: Model, size_px: tuple[int, int], pictures: int
) -> ResolvedLatents | None:
    """The latents with every choice made. Raises INVALID_FIELD for a shape that the size, the model or the number of
    pictures does not ask for."""
    given = asked.init_latents
    if given is None or read is None:
        return None
    wanted = latent_shape(model, *size_px)
    if read.shape[1:] != wanted or read.shape[0] not in (1, pictures):
        shape = "×".join(map(str, (pictures, *wanted)))
        text = f"are {'×'.join(map(str, read.shape))}, and {size_px[0]}×{size_px[1]} px of model {model.id} are {shape}"
        violation = Violation(field=f"{_PATH}.blob_id", message=f"the latents {text}; give a size that fits")
        raise InvalidRequest([violation])
    return ResolvedLatents(
        blob_id=read.blob_id, sha256=read.sha256, strength=1.0 if given.strength is None else given.strength
    )


def latent_shape(model: Model, width_px: int, height_px: int) -> tuple[int, int, int]:
    """(channels, height, width) of a picture's latents, by the config of the model's VAE. Raises MODEL_INCOMPATIBLE for a
    config, which can come from anywhere, that does not say it."""
    config = read_config(model, "vae", "config.json")
    levels, channels = config.get("block_out_channels"), config.get("latent_channels", _CHANNELS)
    if not isinstance(levels, list) or not 0 < len(levels) <= _LEVELS or not isinstance(channels, int):
        message = (
            f"vae/config.json of model {model.id} has no 1..{_LEVELS} block_out_channels, or no number of latent_channels;"
            " restore the file, then scan again"
        )
        facts = {"model_id": model.id, "component": "vae", "file": "config.json"}
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    edge = 2 ** (len(levels) - 1)
    return channels, height_px // edge, width_px // edge
