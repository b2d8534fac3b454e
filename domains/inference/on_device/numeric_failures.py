"""Errors for NaN and infinite values: which step or stage of a generation made them, and what helps."""

from domains.errors import ErrorReason, InternalError
from domains.inference.generation import ResolvedGeneration
from domains.progress import Stage


def not_finite(step: int, resolved: ResolvedGeneration) -> InternalError:
    """The error for latents after a step."""
    message = (
        f"the latents are no longer finite after step {step} of {resolved.steps} with {resolved.sampler};"
        " load the model in a wider precision, or lower the guidance"
    )
    facts = {"step": step, "sampler": resolved.sampler, "guidance_scale": resolved.guidance_scale}
    return InternalError(message, ErrorReason.NUMERIC_FAILURE, **facts)


def not_encoded(resolved: ResolvedGeneration) -> InternalError:
    """The error for a picture that the request hands in."""
    message = (
        f"the VAE of model {resolved.model_id} makes latents that are not finite of a picture that the request hands in;"
        " load the model in a wider precision"
    )
    facts = {"stage": str(Stage.ENCODING_INPUT), "model_id": resolved.model_id}
    return InternalError(message, ErrorReason.NUMERIC_FAILURE, **facts)


def not_decoded(index: int, resolved: ResolvedGeneration) -> InternalError:
    """The error for a picture that has such values in float32 too."""
    message = (
        f"the VAE of model {resolved.model_id} makes pixels that are no numbers of picture {index}, in float32 too;"
        " lower the guidance, or validate the model's files"
    )
    facts = {"stage": str(Stage.DECODING), "model_id": resolved.model_id, "image_index": index}
    return InternalError(message, ErrorReason.NUMERIC_FAILURE, **facts)
