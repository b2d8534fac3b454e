"""The generations that a benchmark of a model runs."""

from collections.abc import Iterator
from itertools import product

import msgspec

from domains.errors import InvalidRequest, Violation
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, ResolvedGeneration, Sampling
from domains.inference.resolution.resolve import resolve
from domains.model.benchmark import NATIVE, ModelBenchmark
from domains.model.model import Model

_PROMPT = "a lighthouse on a cliff above the sea at dusk, detailed painting"
"""The same in each benchmark, so that figures can be compared."""


def benchmark_cases(asked: ModelBenchmark, model: Model) -> Iterator[ResolvedGeneration]:
    """Each size with each number of pictures. Raises what `resolve` raises."""
    for (width_px, height_px), images in product(asked.sizes or (NATIVE,), asked.batch_sizes or (1,)):
        generation = Generation(
            prompt=_PROMPT,
            model_id=model.id,
            width_px=width_px or None,
            height_px=height_px or None,
            sampling=Sampling(sampler=asked.sampler, steps=asked.steps, seeds=tuple(range(images))),
            output=EncodeOptions(manifest=ManifestDetail.NONE),
        )
        try:
            yield resolve(generation, model)
        except InvalidRequest as error:
            raise InvalidRequest(map(in_benchmark, error.violations), error.reason, **error.facts) from None


def in_benchmark(violation: Violation) -> Violation:
    """The violation with the field of a benchmark in the place of a generation's."""
    field = violation.field.rpartition(".")[2]
    return msgspec.structs.replace(violation, field=f"model_benchmark.{_FIELDS.get(field, field)}")


_FIELDS = {
    **{"width_px": "sizes", "height_px": "sizes", "image_count": "batch_sizes", "seeds": "batch_sizes"},
    "mask": "model_id",
}
"""By field of a generation: the field of a benchmark that sets it, or that asks for it."""
