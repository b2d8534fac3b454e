"""Makes models known that a caller names: files in a root, or components of other models."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from domains.errors import AlreadyExists, ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.labels import Labels, label_violations
from domains.model.blob_files import BlobPaths, blobs_of
from domains.model.blob_models import BlobModels
from domains.model.catalogue import Catalogue
from domains.model.composition import MAX_PARTS, Recipe, composed
from domains.model.detected_model import blank_model
from domains.model.edit import MAX_DISPLAY_NAME
from domains.model.finding import ModelFinding
from domains.model.inspect import findings_of
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.naming import free_id_of, id_violations
from domains.model.notes import ModelNote
from domains.reasons import Severity


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What to make known. Exactly one of `path`, `recipe` and `blobs`."""

    model_id: str = ""
    """Empty: one is made from its name."""
    display_name: str = ""
    path: str = ""
    recipe: Recipe | None = None
    blobs: BlobPaths = ()
    labels: Labels = ()
    validate_only: bool = False


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The model as it is known now."""

    model: Model
    findings: tuple[ModelFinding, ...]
    already_known: bool = False


class Registrations:
    """Registers models. One thread."""

    def __init__(self, catalogue: Catalogue, blobs: BlobModels | None = None) -> None:
        """`blobs` None: no caller registers models from blobs here."""
        self._catalogue = catalogue
        self._blobs = blobs

    async def register(self, asked: Registration) -> Registered:
        """Make a model known, or say with `validate_only` what would be.

        Raises INVALID_FIELD, ID_TAKEN, MODEL_NOT_FOUND, PATH_OUTSIDE_ROOTS, PATH_NOT_FOUND, BLOB_NOT_FOUND, BLOB_CORRUPT,
        MODEL_CORRUPT, MODEL_INCOMPATIBLE, COMPONENT_MISSING, STORAGE_FULL.
        """
        _check(asked)
        model = await self._named(asked)
        known = self._catalogue.find(model.id)
        if known is not None and not (_same(known, model) or _back(known, model)):
            raise AlreadyExists(f"the id {model.id} names a model with other content", model_id=model.id)
        if known is not None and not _back(known, model):
            return Registered(model=known, findings=tuple(findings_of(known)), already_known=True)
        found = tuple(findings_of(model))
        if asked.validate_only:
            return Registered(model=replace(model, labels=asked.labels), findings=found)
        note = ModelNote(display_name=asked.display_name, plain_name=model.display_name, labels=asked.labels)
        if self._blobs and asked.blobs:
            self._blobs.hold(model)
        return Registered(model=self._catalogue.register(model, note), findings=found)

    async def _named(self, asked: Registration) -> Model:
        if asked.recipe:
            return self._composed(asked)
        return await (self._of_blobs(asked, self._blobs) if self._blobs and asked.blobs else self._of_path(asked))

    async def _of_blobs(self, asked: Registration, blobs: BlobModels) -> Model:
        twin = None if asked.model_id else blobs.known(asked.blobs)
        model = await blobs.read(asked.blobs, twin.id if twin else asked.model_id, asked.display_name)
        grave = next((one for one in findings_of(model) if one.severity is Severity.ERROR), None)
        if grave is not None:
            raise FailedPrecondition(grave.message, grave.reason or ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id)
        return model

    def _composed(self, asked: Registration) -> Model:
        assert asked.recipe
        name = asked.display_name or asked.model_id or f"{asked.recipe.base_id} with other parts"
        twin = None if asked.model_id else self._find(lambda one: _recipe_of(one) == asked.recipe)
        model_id = twin.id if twin else asked.model_id or self._free_id(name)
        blank = replace(blank_model(Path(), name, model_id, ModelLayout.PARTS), folder="")
        return composed(blank, asked.recipe, self._catalogue.get)

    async def _of_path(self, asked: Registration) -> Model:
        seen = await self._catalogue.inspector.path(asked.path)
        grave = next((one for one in seen.findings if one.severity is Severity.ERROR), None)
        if grave is not None and not seen.registered:
            reason = grave.reason or ErrorReason.MODEL_INCOMPATIBLE
            raise FailedPrecondition(grave.message, reason, path=excerpt(asked.path))
        if seen.registered and asked.model_id in ("", seen.model.id):
            return self._catalogue.get(seen.model.id)
        if seen.registered:
            message = f"the files are known already, as model {seen.model.id}; use that id, or forget it first"
            raise AlreadyExists(message, model_id=seen.model.id)
        return replace(seen.model, id=asked.model_id) if asked.model_id else seen.model

    def _find(self, fits: Callable[[Model], bool]) -> Model | None:
        return next(filter(fits, self._catalogue.list()), None)

    def _free_id(self, name: str) -> str:
        return free_id_of(name, {model.id for model in self._catalogue.list()})


def _recipe_of(model: Model) -> Recipe:
    return Recipe(base_id=model.base_id, taken=model.taken)


def _same(known: Model, model: Model) -> bool:
    if model.layout is ModelLayout.PARTS:
        return _recipe_of(known) == _recipe_of(model)
    if blobs_of(model) or blobs_of(known):
        return _editions(known) == _editions(model)
    return known.folder == model.folder


def _editions(model: Model) -> set[tuple[str, str, int]]:
    return {(stamp.path, stamp.blob_id, stamp.generation) for stamp in blobs_of(model)}


def _back(known: Model, model: Model) -> bool:
    """Whether the blobs of a model that had lost them are there again."""
    lost = known.state is ModelState.MISSING or known.reason is ErrorReason.BLOB_CORRUPT
    names = [{(stamp.path, stamp.blob_id) for stamp in blobs_of(one)} for one in (known, model)]
    return lost and bool(names[0]) and names[0] == names[1]


def _check(asked: Registration) -> None:
    wrong = [*label_violations(asked.labels, "labels"), *id_violations(asked.model_id, "model_id")]
    if len(asked.display_name) > MAX_DISPLAY_NAME:
        text = f"has {len(asked.display_name)} characters; at most {MAX_DISPLAY_NAME}"
        wrong.append(Violation(field="display_name", message=text, allowed=f"0..{MAX_DISPLAY_NAME} characters"))
    if asked.recipe is None and not asked.path and not asked.blobs:
        text = "is not set; name a path, blobs, or the models that give the parts"
        wrong.append(Violation(field="source", message=text))
    if asked.recipe is not None:
        wrong += _check_recipe(asked.recipe)
    if wrong:
        raise InvalidRequest(wrong)


def _check_recipe(recipe: Recipe) -> list[Violation]:
    wrong: list[Violation] = []
    if not recipe.base_id:
        wrong.append(Violation(field="parts_source.base_model_id", message="is empty; name a model"))
    if len(recipe.taken) > MAX_PARTS:
        text = f"has {len(recipe.taken)} entries; at most {MAX_PARTS}"
        wrong.append(Violation(field="parts_source.components", message=text, allowed=f"0..{MAX_PARTS} entries"))
    return wrong
