"""Submits the work of making a picture again from what its file says."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from domains.errors import ErrorReason, InvalidRequest, NotFound, NotServed, Violation, excerpt
from domains.inference.checks.request import Checked, checked
from domains.inference.generation import EncodeOptions, Generation, ResolvedGeneration
from domains.inference.loras import Lora
from domains.inference.prompts import LongPrompt, Syntax
from domains.inference.recipes import FIELD, Cause, NamedLora, Recipe, stem
from domains.model.catalogue import Catalogue
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState
from domains.processing.attempts.reproductions import Reproductions, SentPicture
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import new_job_id
from domains.processing.jobs.kinds.reproduce import ReproduceWork
from domains.processing.submit import Submissions
from domains.requests import NEW, Asked

DEFAULT_TOLERANCE = 2
TOLERANCE = (0, 255)


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """A request to make a picture again."""

    data: bytes = b""
    """The file. Empty: the blob has it."""
    blob_id: str = ""
    model_id: str = ""
    """The model to take. Empty: the one that the file names."""
    tolerance: int | None = None
    """Largest difference of a colour value that counts as the same. Absent: 2."""


class Reproducing:
    """Finds the models that files name in this server's catalogue."""

    def __init__(
        self,
        submissions: Submissions,
        catalogue: Catalogue,
        pictures: Reproductions,
        asked_again: Callable[[ResolvedGeneration], Checked],
    ) -> None:
        """`asked_again`: returns the request that states every choice of a generation."""
        self._submissions = submissions
        self._catalogue = catalogue
        self._pictures = pictures
        self._asked_again = asked_again

    async def submit(
        self, given: Reproduction, options: JobOptions, asked: Asked = NEW, *, detached: bool = True
    ) -> Job:
        """Store the job. Raises BAD_IMAGE, MODEL_NOT_FOUND, and what a generation is refused with."""
        if not (given.data or given.blob_id):
            raise InvalidRequest([Violation(field=FIELD, message="must be set: the picture, or a blob that holds it")])
        low, high = TOLERANCE
        if given.tolerance is not None and not low <= given.tolerance <= high:
            text = f"{given.tolerance} is not within {low}..{high}"
            raise InvalidRequest([Violation(field="reproduction.tolerance", message=text, allowed=f"{low}..{high}")])
        picture = await self._pictures.look(given.data, given.blob_id)
        work, options = await self._work(given, picture, options)
        job_id = new_job_id()
        job: Job | None = None
        try:
            await self._pictures.own(picture, work.resolved.input_blobs, job_id)
            job = self._submissions.reproduce(work, options, asked, detached=detached, job_id=job_id)
            return job
        finally:
            if job is None or job.id != job_id:
                self._submissions.release(job_id)

    async def _work(
        self, given: Reproduction, picture: SentPicture, options: JobOptions
    ) -> tuple[ReproduceWork, JobOptions]:
        recipe = picture.recipe
        model = self._model(given.model_id, recipe)
        loras, causes = self._loras(recipe)
        recipe, lacking = self._with_upscaler(recipe)
        generations = self._submissions.generations
        try:
            if recipe.original is None:
                read = checked(fitted(recipe, model, picture, loras))
            else:
                read = self._asked_again(replace(recipe.original, model_id=model.id))
            files = await generations.read(read)
            work, options = generations.work(read, options, files)
        except (InvalidRequest, NotServed) as error:
            raise as_bad_image(error) from None
        resolved = work.resolved
        return (
            ReproduceWork(
                asked=work.asked,
                resolved=resolved,
                blob_id=picture.blob_id,
                model_id=given.model_id,
                tolerance=DEFAULT_TOLERANCE if given.tolerance is None else given.tolerance,
                asked_tolerance=given.tolerance,
                original=recipe.original or _as_said(recipe, resolved),
                causes=(*changed_inputs(recipe, resolved), *causes, *lacking, *recipe.unread),
                versions=recipe.versions,
            ),
            options,
        )

    def _model(self, wanted: str, recipe: Recipe) -> Model:
        if wanted:
            return self._catalogue.get(wanted)
        named = recipe.model
        models = [one for one in self._catalogue.list() if one.kind is ModelKind.CHECKPOINT]
        for one in models:
            if named.sha256 and one.sha256 == named.sha256:
                return one
        for one in models:
            if named.name and named.name.casefold() in (one.id.casefold(), one.display_name.casefold()):
                return one
        said = named.sha256 or named.name or "no model"
        message = f"the picture names {excerpt(said)!r}, which is not here; register it, or name a model with model_id"
        raise NotFound(message, ErrorReason.MODEL_NOT_FOUND, model_id=excerpt(named.id or named.name))

    def _loras(self, recipe: Recipe) -> tuple[Sequence[Lora], Sequence[Cause]]:
        """The LoRAs that another program's text names: those that this server has, and a cause for each that it lacks."""
        known = {one.id.casefold(): one for one in self._catalogue.list() if one.kind is ModelKind.LORA}
        found = [(one, known.get(stem(one.name).casefold())) for one in recipe.loras]
        there = [Lora(model_id=entry.id, weight=one.weight) for one, entry in found if entry is not None]
        return there, [_missing(one) for one, entry in found if entry is None]

    def _with_upscaler(self, recipe: Recipe) -> tuple[Recipe, Sequence[Cause]]:
        """The recipe with the upscaler that a text names; with a filter, and a cause, where this server lacks it."""
        hires = recipe.generation.hires_pass
        if not recipe.upscaler or hires is None:
            return recipe, ()
        name = stem(recipe.upscaler).casefold()
        known = (one for one in self._catalogue.list() if one.kind is ModelKind.UPSCALER)
        usable = (one for one in known if one.state is ModelState.AVAILABLE)
        entry = next((one for one in usable if name in (one.id.casefold(), one.display_name.casefold())), None)
        if entry is None:
            by = hires.pixel_filter
            return recipe, (Cause(name="Hires upscaler", original=recipe.upscaler[:255], present=f"{by}"),)
        hires = replace(hires, upscaler_model_id=entry.id, pixel_filter=None)
        return replace(recipe, generation=replace(recipe.generation, hires_pass=hires)), ()


def fitted(recipe: Recipe, model: Model, picture: SentPicture, loras: Sequence[Lora]) -> Generation:
    """The request for the picture, as the model's family takes it."""
    asked = replace(recipe.generation, model_id=model.id)
    if not FAMILIES[model.family].reads_windows:
        asked = replace(asked, prompt_syntax=Syntax.PLAIN, long_prompt=LongPrompt.TRUNCATE, clip_skip=None)
    elif model.family == "sdxl" and recipe.source == "a1111":
        # On SDXL, A1111 takes the layer before the last whatever its Clip skip says.
        asked = replace(asked, clip_skip=None)
    if asked.width_px is None:
        asked = replace(asked, width_px=picture.width_px, height_px=picture.height_px)
    return replace(asked, loras=tuple(loras), output=EncodeOptions(media_type=picture.media_type))


def as_bad_image(error: InvalidRequest | NotServed) -> InvalidRequest:
    """The error for a file that asks for what this server cannot make: a fault of the file."""
    said = "; ".join(f"{one.field.removeprefix('generation.')}: {one.message}" for one in error.violations[:4])
    message = f"the image says how it was made, and that cannot be made here: {said}"
    return InvalidRequest([Violation(field=FIELD, message=message)], ErrorReason.BAD_IMAGE)


def _as_said(recipe: Recipe, resolved: ResolvedGeneration) -> ResolvedGeneration:
    """What another program's text says, with this server's choices where it says nothing."""
    named = recipe.model
    return replace(resolved, model_id=excerpt(named.name) or resolved.model_id, model_sha256=named.sha256)


def changed_inputs(recipe: Recipe, resolved: ResolvedGeneration) -> Iterator[Cause]:
    """The inputs that differ from those of the first picture."""
    original = recipe.original
    if original is None:
        if recipe.model.name and recipe.model.name.casefold() != resolved.model_id.casefold():
            yield Cause(name="model_id", original=recipe.model.name, present=resolved.model_id)
        yield Cause(name="server_version", original=recipe.source, present="deviceops")
        return
    if original.model_sha256 != resolved.model_sha256:
        yield Cause(name="model_sha256", original=original.model_sha256, present=resolved.model_sha256)
    for name in ("all_loras", "textual_inversions", "components"):
        for was, now in zip(getattr(original, name), getattr(resolved, name), strict=False):
            if was.model_sha256 != now.model_sha256:
                told = name.removeprefix("all_")
                yield Cause(name=f"{told}.sha256", original=was.model_sha256, present=now.model_sha256)
    for name in ("refiner", "hires_pass"):
        was, now = getattr(original, name), getattr(resolved, name)
        if was is not None and now is not None and was.model_sha256 != now.model_sha256:
            yield Cause(name=f"{name}.sha256", original=was.model_sha256, present=now.model_sha256)
    for place, (one, other) in enumerate(zip(original.detail_passes, resolved.detail_passes, strict=False)):
        if one.detector_sha256 != other.detector_sha256:
            named = f"detail_passes[{place}].detector"
            yield Cause(name=named, original=one.detector_sha256, present=other.detector_sha256)
    before, after = original.hires_pass, resolved.hires_pass
    if before is not None and after is not None and before.upscaler_sha256 != after.upscaler_sha256:
        yield Cause(name="hires_pass.upscaler", original=before.upscaler_sha256, present=after.upscaler_sha256)
    if recipe.image_count > 1:
        yield Cause(name="image_count", original=str(recipe.image_count), present="1")
    was, now = original.init_image, resolved.init_image
    if was is not None and now is not None and was.sha256 != now.sha256:
        yield Cause(name="image_sha256", original=was.sha256, present=now.sha256)


def _missing(lora: NamedLora) -> Cause:
    return Cause(name="lora", original=f"{excerpt(lora.name)}:{lora.weight:g}")
