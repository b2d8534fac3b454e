"""Converts reproductions to and from messages."""

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import generated_image_pb2, reproduction_pb2
from domains.inference.checks.request import Checked
from domains.inference.generation import ResolvedGeneration
from domains.inference.recipes import Verdict
from domains.processing.jobs.event import GenerationResult, ReproductionResult
from domains.processing.jobs.kinds import ReproduceWork
from domains.processing.reproduction import Reproduction
from server.inference.generation_messages import from_generation, to_filled, to_resolved

_VERDICTS = {
    Verdict.IDENTICAL: reproduction_pb2.REPRODUCTION_VERDICT_IDENTICAL,
    Verdict.WITHIN_TOLERANCE: reproduction_pb2.REPRODUCTION_VERDICT_WITHIN_TOLERANCE,
    Verdict.DIFFERENT: reproduction_pb2.REPRODUCTION_VERDICT_DIFFERENT,
}
_CAUSES = 64


def asked_again(resolved: ResolvedGeneration) -> Checked:
    """The request that has every choice of a generation. Raises what of it this server does not serve."""
    return from_generation(to_filled(resolved))


def from_reproduction(message: reproduction_pb2.Reproduction) -> Reproduction:
    """The reproduction of a request."""
    return Reproduction(
        data=message.image.data,
        blob_id=message.image.blob_id,
        model_id=message.model_id,
        tolerance=message.tolerance if message.HasField("tolerance") else None,
    )


def to_reproduction(work: ReproduceWork) -> reproduction_pb2.Reproduction:
    """The message of the work as the caller asked for it; a blob stands for the picture's bytes."""
    return reproduction_pb2.Reproduction(
        image=image_pb2.ImageInput(blob_id=work.blob_id), model_id=work.model_id, tolerance=work.asked_tolerance
    )


def to_report(
    work: ReproduceWork, result: ReproductionResult, image: generated_image_pb2.GeneratedImage, device_id: str
) -> reproduction_pb2.ReproductionReport:
    """The message of a comparison."""
    found = result.comparison
    return reproduction_pb2.ReproductionReport(
        verdict=_VERDICTS[found.verdict],
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
        different_pixels_ratio=found.different_pixels_ratio,
        psnr_db=found.psnr_db,
        causes=[
            reproduction_pb2.ReproductionCause(name=one.name, original_value=one.original, present_value=one.present)
            for one in result.causes[:_CAUSES]
        ],
        image=image,
        original=to_resolved(GenerationResult(images=(), resolved=work.original), ""),
        present=to_resolved(result, device_id),
    )
