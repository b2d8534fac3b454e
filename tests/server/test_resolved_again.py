"""A resolved generation asks for itself: its message, read as a request and resolved again, is the same."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deviceops.inference.v1 import resolved_generation_pb2
from domains.inference import limits
from domains.inference.generation import EncodeOptions, Generation, ManifestDetail, Previews, Sampling
from domains.inference.own_walk import OwnWalk
from domains.inference.resolution.resolve import resolve
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES, SamplerEntry
from domains.inference.seed_variation import SeedVariation
from domains.inference.step_range import StepRange
from domains.model.model import Model, ModelState
from domains.processing.jobs.event import GenerationResult
from server.inference.generation_messages import from_generation, to_resolved

SEEDS = st.integers(*limits.SEED)
EDGES = st.integers(limits.EDGE_PX[0] // 8, limits.EDGE_PX[1] // 8).map(lambda edge: edge * 8)
MODELS = st.builds(
    Model,
    id=st.just("m"),
    display_name=st.just("M"),
    family=st.just("sd1"),
    folder=st.just("/m"),
    components=st.just(()),
    size_bytes=st.just(1),
    sha256=st.just("0" * 64),
    state=st.just(ModelState.AVAILABLE),
    native_width_px=EDGES,
    native_height_px=EDGES,
    default_sampler=st.sampled_from(["", *SAMPLERS]),
    default_sigma_schedule=st.sampled_from(["", *SIGMA_SCHEDULES, "beta"]),
)


@st.composite
def own_walks(draw: st.DrawFn, takes: SamplerEntry) -> OwnWalk:
    """What a request can say about the walk of a sampler."""
    name = draw(st.sampled_from(["", *(one for one in takes.options if one != "eta")]))
    levels = draw(st.lists(st.integers(*limits.TIMESTEP), min_size=2, max_size=5, unique=True).map(sorted))
    values: dict[str, Any] = {
        "": {},
        "solver_order": {"solver_order": 3},
        "timestep_spacing": {"timestep_spacing": "trailing"},
        "sigmas": {"sigmas": tuple(level / 2 for level in levels[::-1])},
        "timesteps": {"timesteps": tuple(levels[::-1])},
    }
    return OwnWalk(**values[name])


@st.composite
def samplings(draw: st.DrawFn, model: Model) -> tuple[Sampling, int | None]:
    """A sampling that the model can be asked for, and the number of pictures that goes with it."""
    name = draw(st.sampled_from(["", *SAMPLERS]))
    takes = SAMPLERS[name or model.default_sampler or next(iter(SAMPLERS))]
    own = draw(own_walks(takes))
    seeds = draw(st.lists(SEEDS, max_size=limits.IMAGES[1]).map(tuple))
    count = draw(st.sampled_from([None, len(seeds)])) if seeds else draw(st.none() | st.integers(*limits.IMAGES))
    first = draw(st.none() | st.just(0))
    sampling = Sampling(
        sampler=name,
        own=own,
        part=StepRange(
            first_step=first, last_step=draw(st.sampled_from([None, 1])), add_noise=draw(st.just(None) | st.just(True))
        ),
        sigma_schedule="" if own.steps else draw(st.sampled_from(["", *takes.sigma_schedules])),
        steps=None
        if own.steps
        else draw(st.none() | st.integers(limits.STEPS[0], takes.most_steps or limits.STEPS[1])),
        guidance_scale=draw(st.none() | st.floats(*limits.GUIDANCE)),
        seed=None if seeds else draw(st.none() | SEEDS),
        seeds=seeds,
        seed_variation=draw(
            st.none() | st.builds(SeedVariation, seed=st.none() | SEEDS, strength=st.floats(*limits.VARIATION))
        ),
        eta=draw(st.none() | (st.floats(*limits.ETA) if takes.eta else st.just(0.0))),
    )
    return sampling, count


@st.composite
def asked(draw: st.DrawFn, model: Model) -> Generation:
    """Any generation that is served, for one model."""
    sampling, count = draw(samplings(model))
    width_px, height_px = draw(st.just((None, None)) | st.tuples(EDGES, EDGES))
    media_type = draw(st.sampled_from(limits.MEDIA_TYPES))
    lossless = media_type in ("image/png", "image/webp") and draw(st.booleans())
    lossy = media_type in limits.LOSSY_MEDIA_TYPES and not lossless
    manifest = draw(st.sampled_from(ManifestDetail))
    return Generation(
        prompt=draw(st.text(max_size=20)),
        negative_prompt=draw(st.text(max_size=20)),
        model_id=draw(st.sampled_from(["", "m"])),
        width_px=width_px,
        height_px=height_px,
        image_count=count,
        sampling=sampling,
        output=EncodeOptions(
            media_type=media_type,
            quality=draw(st.none() | st.integers(*limits.QUALITY)) if lossy else None,
            lossless=lossless,
            manifest=manifest,
            a1111_parameters=manifest is ManifestDetail.FULL and draw(st.booleans()),
            provenance=draw(st.booleans()),
        ),
        previews=Previews(
            every_steps=draw(st.integers(*limits.PREVIEW_EVERY)),
            max_edge_px=draw(st.integers(*limits.PREVIEW_EDGE_PX)),
        ),
    )


PAIRS = MODELS.flatmap(lambda model: st.tuples(st.just(model), asked(model)))


@given(PAIRS)
def test_what_was_resolved_resolves_to_itself(pair: tuple[Model, Generation]) -> None:
    model, generation = pair
    resolved = resolve(generation, model)
    sent = to_resolved(GenerationResult(images=(), resolved=resolved), "cpu").SerializeToString()
    received = resolved_generation_pb2.ResolvedGeneration.FromString(sent)
    assert resolve(from_generation(received.generation), model) == resolved


@given(PAIRS)
def test_every_choice_is_made(pair: tuple[Model, Generation]) -> None:
    model, generation = pair
    resolved = resolve(generation, model)
    message = to_resolved(GenerationResult(images=(), resolved=resolved), "cpu").generation
    assert (message.model_id, message.image_count) == (model.id, len(resolved.seeds))
    assert message.width_px >= limits.EDGE_PX[0] <= message.height_px
    assert list(message.sampling.seeds) == list(resolved.seeds)
    assert message.sampling.HasField("eta") == SAMPLERS[message.sampling.sampler].eta
    lossy = message.output.media_type in limits.LOSSY_MEDIA_TYPES and not message.output.lossless
    assert message.output.HasField("quality") == lossy
