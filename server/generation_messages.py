"""Generations to and from messages.

`from_generation` refuses by name every field of the contract that this server does not serve yet: a request is carried out
as it was asked, or not at all.
"""

import importlib.metadata
from collections.abc import Callable

from deviceops.inference.v1 import generation_pb2, resolved_generation_pb2
from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.check import preview_violations
from domains.inference.generation import Generation, Previews, ResolvedGeneration, Sampling
from domains.processing.submit import violations_of
from server import convert

_SERVED = {
    *(
        "prompt",
        "negative_prompt",
        "model_id",
        "width_px",
        "height_px",
        "image_count",
        "sampling",
        "output",
        "previews",
    ),
    *("require_loaded_model",),
}
_SAMPLING_SERVED = {"scheduler", "steps", "guidance_scale", "seed", "eta", "karras_sigmas"}
_HARMLESS: dict[str, Callable[[object], bool]] = {
    # What these ask for is what happens anyway.
    "prompt_syntax": lambda value: value == generation_pb2.PROMPT_SYNTAX_PLAIN,
    "long_prompt": lambda value: value == generation_pb2.LONG_PROMPT_TRUNCATE,
    "determinism": lambda value: value in (generation_pb2.DETERMINISM_FAST, generation_pb2.DETERMINISM_EXACT),
}


def from_generation(message: generation_pb2.Generation, path: str = "generation") -> Generation:
    """What was asked. Raises all that is wrong with it; UNSUPPORTED_COMBINATION if that is only fields that this server
    does not serve."""
    unserved = _unserved(message, path)
    asked = _asked(message)
    wrong = violations_of(asked)
    if unserved or wrong:
        reason = ErrorReason.INVALID_FIELD if wrong else ErrorReason.UNSUPPORTED_COMBINATION
        raise InvalidRequest([*unserved, *wrong], reason)
    return asked


def _asked(message: generation_pb2.Generation) -> Generation:
    sampling = message.sampling
    return Generation(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        model_id=message.model_id,
        width_px=message.width_px if message.HasField("width_px") else None,
        height_px=message.height_px if message.HasField("height_px") else None,
        image_count=message.image_count or 1,
        sampling=Sampling(
            scheduler=sampling.scheduler,
            steps=sampling.steps if sampling.HasField("steps") else None,
            guidance_scale=sampling.guidance_scale if sampling.HasField("guidance_scale") else None,
            seed=sampling.seed if sampling.HasField("seed") else None,
            eta=sampling.eta if sampling.HasField("eta") else None,
            karras_sigmas=sampling.karras_sigmas if sampling.HasField("karras_sigmas") else None,
        ),
        output=convert.from_output(message.output),
        previews=_previews(message.previews),
    )


def _previews(message: generation_pb2.PreviewOptions) -> Previews:
    return Previews(every_steps=message.every_steps, max_edge_px=message.max_edge_px or 256)


def from_previews(message: generation_pb2.PreviewOptions, path: str) -> Previews:
    """The previews that a watcher wants. Raises all that is wrong with them."""
    wanted = _previews(message)
    convert.refuse(list(preview_violations(wanted, path)))
    return wanted


def _unserved(message: generation_pb2.Generation, path: str) -> list[Violation]:
    named = [(f"{path}.{field.name}", field.name, value) for field, value in message.ListFields()]
    unserved = [where for where, name, value in named if name not in _SERVED and not _harmless(name, value)]
    unserved += [
        f"{path}.sampling.{field.name}"
        for field, _ in message.sampling.ListFields()
        if field.name not in _SAMPLING_SERVED
    ]
    if message.output.preserve_metadata:
        unserved.append(f"{path}.output.preserve_metadata")
    text = "this server does not serve it yet; GetInferenceCapabilities lists the fields that it serves"
    return [Violation(field=field, message=text) for field in unserved]


def _harmless(name: str, value: object) -> bool:
    return name in _HARMLESS and _HARMLESS[name](value)


def served_fields() -> list[str]:
    """Paths within a Generation that this server serves."""
    return [*sorted(_SERVED - {"sampling"}), *(f"sampling.{name}" for name in sorted(_SAMPLING_SERVED))]


def to_generation(asked: Generation) -> generation_pb2.Generation:
    """What was asked, as it was asked."""
    return generation_pb2.Generation(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        model_id=asked.model_id,
        width_px=asked.width_px,
        height_px=asked.height_px,
        image_count=asked.image_count,
        sampling=generation_pb2.Sampling(
            scheduler=asked.sampling.scheduler,
            steps=asked.sampling.steps,
            guidance_scale=asked.sampling.guidance_scale,
            seed=asked.sampling.seed,
            eta=asked.sampling.eta,
            karras_sigmas=asked.sampling.karras_sigmas,
        ),
        output=convert.to_output(asked.output),
        previews=generation_pb2.PreviewOptions(
            every_steps=asked.previews.every_steps, max_edge_px=asked.previews.max_edge_px
        ),
    )


def to_resolved(
    resolved: ResolvedGeneration, device_id: str, precision: str, libraries: tuple[str, ...]
) -> resolved_generation_pb2.ResolvedGeneration:
    """What ran, or would run."""
    return resolved_generation_pb2.ResolvedGeneration(
        task=resolved_generation_pb2.GENERATION_TASK_TEXT_TO_IMAGE,
        model_id=resolved.model_id,
        model_sha256=resolved.model_sha256,
        family=resolved.family,
        device_id=device_id,
        precision=convert.to_precision(precision),
        prompt=resolved.prompt,
        negative_prompt=resolved.negative_prompt,
        width_px=resolved.width_px,
        height_px=resolved.height_px,
        seeds=resolved.seeds,
        scheduler=resolved.scheduler,
        steps=resolved.steps,
        guidance_scale=resolved.guidance_scale,
        eta=resolved.eta,
        karras_sigmas=resolved.karras_sigmas,
        determinism=generation_pb2.DETERMINISM_EXACT,
        output=convert.to_output(resolved.output),
        previews=generation_pb2.PreviewOptions(
            every_steps=resolved.previews.every_steps, max_edge_px=resolved.previews.max_edge_px
        ),
        prompt_syntax=generation_pb2.PROMPT_SYNTAX_PLAIN,
        long_prompt=generation_pb2.LONG_PROMPT_TRUNCATE,
        server_version=importlib.metadata.version("deviceops"),
        libraries=libraries,
    )
