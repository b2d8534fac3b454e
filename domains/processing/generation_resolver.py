"""Resolves the request of a generation to the work of a job: each obstacle that the request itself has is found here."""

import asyncio

import msgspec

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, NotFound
from domains.inference.checks.request import Checked
from domains.inference.components import ComponentSource, ResolvedComponent
from domains.inference.controls import Control
from domains.inference.details import DetailPass
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.image_prompts import ImagePrompt
from domains.inference.resolution.controls import ReadControl
from domains.inference.resolution.image_prompts import ReadImagePrompt
from domains.inference.resolution.request_files import NOTHING_READ, RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.model.assembly import assembly_of, unknown_components
from domains.model.catalogue import Catalogue
from domains.model.families import FAMILIES
from domains.model.image_encoders import encoder_for
from domains.model.kind import ModelKind
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model, ModelState
from domains.processing.devices.step_limit import StepLimit
from domains.processing.inputs.generation_files import GenerationFiles, named_by_blobs
from domains.processing.inputs.input_pictures import MASK_FIELD
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.memory.model_use import held_by_devices, loaded_models
from domains.processing.places import Places

_HASHED = (ModelKind.LORA, ModelKind.TEXTUAL_INVERSION)
"""Kinds of adapters that generations name beside their model."""


class GenerationResolver:
    """Resolves requests with the models, devices and pictures of this server."""

    def __init__(
        self,
        catalogue: Catalogue,
        loaded: LoadedModels,
        places: Places,
        step_limit: StepLimit,
        inputs: GenerationFiles,
    ) -> None:
        self._catalogue = catalogue
        self._loaded = loaded
        self._places = places
        self._step_limit = step_limit
        self._inputs = inputs

    async def read(self, given: Checked) -> RequestFiles:
        """Decode the picture that a request starts from, and hash the adapters that it names. Reads nothing for a request
        that has faults of its own: those go first."""
        if given.wrong.error():
            return NOTHING_READ
        init, mask, latents = given.asked.init_image, given.asked.mask, given.asked.init_latents
        return RequestFiles(
            picture=None if init is None else await self._inputs.pictures.look(init),
            mask=None if mask is None else await self._inputs.pictures.look(mask, MASK_FIELD),
            loras=[await self._hashed(lora.model_id) for lora in given.asked.loras],
            words=[await self._hashed(word.model_id) for word in given.asked.textual_inversions],
            controls=[await self._read_control(one, place) for place, one in enumerate(given.asked.controls)],
            references=await self._inputs.references.look(given.asked),
            components=await self._read_components(given.asked),
            latents=None if latents is None else await self._inputs.latents.look(latents),
            image_prompts=[await self._read_shown(one, place) for place, one in enumerate(given.asked.image_prompts)],
            regions=await self._inputs.regions.looked(given.asked),
            region_loras=[
                [await self._hashed(lora.model_id) for lora in region.loras] for region in given.asked.regions
            ],
            refiner=await self._read_refiner(given.asked),
            hires=await self._read_hires(given.asked),
            upscaler=await self._read_upscaler(given.asked),
            detectors=[await self._read_detector(one) for one in given.asked.detail_passes],
        )

    async def _read_refiner(self, asked: Generation) -> Model | None:
        return None if asked.refiner is None else await self._with_hash(asked.refiner.model_id)

    async def _read_hires(self, asked: Generation) -> Model | None:
        model_id = "" if asked.hires_pass is None else asked.hires_pass.model_id
        return await self._with_hash(model_id) if model_id else None

    async def _read_upscaler(self, asked: Generation) -> Model | None:
        """One of another kind as it is, which is then refused."""
        model_id = None if asked.hires_pass is None else asked.hires_pass.upscaler_model_id
        if not model_id:
            return None
        model = self._catalogue.get(model_id)
        can = model.kind is ModelKind.UPSCALER and model.state is ModelState.AVAILABLE
        return await asyncio.to_thread(self._catalogue.hashed_whole, model) if can else model

    async def _read_detector(self, asked: DetailPass) -> Model:
        """One of another kind as it is, which is then refused. Raises COMPONENT_MISSING where none is named and none is
        there."""
        model = self._catalogue.get(asked.detector_model_id) if asked.detector_model_id else self._default_detector()
        can = model.kind is ModelKind.DETECTOR and model.state is ModelState.AVAILABLE
        return await asyncio.to_thread(self._catalogue.hashed_whole, model) if can else model

    def _default_detector(self) -> Model:
        """The first available detector by id. Raises COMPONENT_MISSING."""
        able = (one for one in self._catalogue.list() if one.kind is ModelKind.DETECTOR)
        found = min((one for one in able if one.state is ModelState.AVAILABLE), key=lambda one: one.id, default=None)
        if found is not None:
            return found
        message = "no detector is here; put the safetensors file of one into a model root, scan, or leave the detail"
        raise FailedPrecondition(f"{message} passes out", ErrorReason.COMPONENT_MISSING)

    async def _with_hash(self, model_id: str) -> Model:
        """The model of a later pass with its hash; one of another kind as it is, which is then refused."""
        model = self._catalogue.get(model_id)
        can = model.kind in (ModelKind.CHECKPOINT, ModelKind.REFINER) and model.state is ModelState.AVAILABLE
        return await asyncio.to_thread(self._catalogue.content_hashed, model) if can else model

    async def _read_components(self, asked: Generation) -> tuple[ResolvedComponent, ...]:
        """The components that are other than the model's own. A file that was never hashed is hashed."""
        found: list[ResolvedComponent] = []
        for one in sorted(self._components_of(asked), key=lambda one: one.component_id):
            if one.omitted:
                found.append(ResolvedComponent(component_id=one.component_id, model_id=""))
            elif one.model_id:
                source = await asyncio.to_thread(self._catalogue.content_hashed, self._catalogue.get(one.model_id))
                sha256 = source.sha256
                found.append(ResolvedComponent(component_id=one.component_id, model_id=source.id, model_sha256=sha256))
        return tuple(found)

    def _components_of(self, asked: Generation) -> tuple[ComponentSource, ...]:
        """The components that the request takes from elsewhere, or those of the loaded model that it names."""
        loaded = self._loaded.find(asked.loaded_model_id) if asked.loaded_model_id else None
        assembly = None if loaded is None else assembly_of(loaded.model_id)
        if assembly is None:
            return asked.components
        return tuple(
            ComponentSource(component_id=name, model_id=source, omitted=not source) for name, source in assembly.sources
        )

    async def _read_control(self, control: Control, place: int) -> ReadControl:
        path, model = f"generation.controls[{place}]", self._catalogue.get(control.model_id)
        if model.kind in (ModelKind.CONTROLNET, ModelKind.T2I_ADAPTER) and model.state is ModelState.AVAILABLE:
            model = await asyncio.to_thread(self._catalogue.hashed_whole, model)
        region = control.region
        return ReadControl(
            model=model,
            image=await self._inputs.controls.look(control.image, f"{path}.image"),
            region=None if region is None else await self._inputs.controls.look(region, f"{path}.region"),
        )

    async def _read_shown(self, prompt: ImagePrompt, place: int) -> ReadImagePrompt:
        path, model = f"generation.image_prompts[{place}]", self._catalogue.get(prompt.model_id)
        encoder = None
        if model.kind is ModelKind.IMAGE_PROMPT_ADAPTER and model.state is ModelState.AVAILABLE:
            hashed, known = self._catalogue.hashed_whole, self._catalogue.list()
            model = await asyncio.to_thread(hashed, model)
            encoder = await asyncio.to_thread(encoder_for, model, known, hashed)
        look = {name: await self._inputs.image_prompts.look(one, f"{path}.{name}") for name, one in prompt.pictures()}
        region, negative = look.pop("region", None), look.pop("negative_image", None)
        images = tuple(one for one in look.values() if one is not None)
        return ReadImagePrompt(model=model, encoder=encoder, images=images, region=region, negative_image=negative)

    def work(
        self, given: Checked, options: JobOptions, files: RequestFiles, *, must_be_loaded: bool = False
    ) -> tuple[GenerateWork, JobOptions]:
        """The work of a request, and its options, restricted to the device of the loaded model that it names."""
        generation = given.asked
        loaded, _, resolved = self.resolved(given, files)
        if loaded is not None:
            options = self._places.with_model(generation, loaded, options)
        self._step_limit.check(resolved, options)
        work = GenerateWork(asked=named_by_blobs(generation, files), resolved=resolved)
        if must_be_loaded:
            self._check_loaded(work)
        return work, options

    def resolved(self, given: Checked, files: RequestFiles) -> tuple[LoadedModel | None, Model, ResolvedGeneration]:
        """The loaded model that a request names, its model, and the request with every choice made."""
        generation = given.asked
        try:
            loaded = self._on_a_device(generation.loaded_model_id) if generation.loaded_model_id else None
            model = self._model_of(generation, loaded)
        except NotFound as missing:
            # Faults of the request itself go first, all in one error.
            raise given.wrong.error() or missing from None
        resolved = resolve(given, model, files)
        if not generation.components and not files.components:
            return loaded, model, resolved
        if wrong := [*unknown_components(FAMILIES[model.family], [one.component_id for one in generation.components])]:
            raise InvalidRequest(wrong)
        resolved = msgspec.structs.replace(resolved, components=files.components)
        return loaded, self._catalogue.get(resolved.runs_as), resolved

    def _on_a_device(self, loaded_id: str) -> LoadedModel:
        """The model on a device with this id. Raises LOADED_MODEL_NOT_FOUND, also for one in the RAM tier."""
        loaded = self._loaded.get(loaded_id)
        if loaded.device_id:
            return loaded
        message = f"{loaded.id} is in host memory, where nothing computes; name the model as model_id instead"
        raise NotFound(message, ErrorReason.LOADED_MODEL_NOT_FOUND, loaded_model_id=loaded.id)

    def _check_loaded(self, work: GenerateWork) -> None:
        """Raise MODEL_NOT_LOADED if no device holds all models that the work needs."""
        needed = set(loaded_models(work))
        if not any(needed <= held for held in held_by_devices(self._loaded.list(), self._catalogue).values()):
            names = ", ".join(sorted(needed))
            message = f"model {names} is loaded on no device, and require_loaded_model is set; call LoadModel first"
            raise FailedPrecondition(message, ErrorReason.MODEL_NOT_LOADED, model_id=names)

    def _model_of(self, generation: Generation, loaded: LoadedModel | None) -> Model:
        if loaded is not None:
            assembly = assembly_of(loaded.model_id)
            return self._catalogue.get(loaded.model_id if assembly is None else assembly.base_id)
        return self._catalogue.get(generation.model_id) if generation.model_id else self._catalogue.default()

    async def _hashed(self, model_id: str) -> Model:
        """An adapter with its file's hash; a model of another kind as it is, which is then refused. Raises
        MODEL_NOT_FOUND."""
        model = self._catalogue.get(model_id)
        return await asyncio.to_thread(self._catalogue.hashed, model) if model.kind in _HASHED else model
