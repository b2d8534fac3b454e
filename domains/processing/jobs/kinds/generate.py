"""Make pictures."""

from typing import ClassVar

from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.given import Given, GivenControl, GivenImagePrompt
from domains.inference.pass_plan import detectors_of, models_of, upscaler_of
from domains.model.execution import AS_USUAL
from domains.model.ways import AS_THE_SERVER_CHOOSES
from domains.processing.jobs.event import GenerationResult
from domains.processing.jobs.kinds.assets import Asset, AssetRole
from domains.processing.jobs.kinds.entry import PlainWork, Reported, Supplies
from domains.processing.workers.worker import GenerateOrder
from domains.reasons import Domain


class GenerateWork(PlainWork, frozen=True, kw_only=True, tag="generate"):
    """Make pictures. Implements `DeviceKind`."""

    domain: ClassVar[Domain] = Domain.INFERENCE
    has_prompt: ClassVar[bool] = True

    asked: Generation
    resolved: ResolvedGeneration

    @property
    def summary(self) -> str:
        """The prompt."""
        return self.asked.prompt

    @property
    def assets(self) -> tuple[Asset, ...]:
        """The base model, those of later passes, then LoRAs, textual inversions, ControlNets and IP-Adapters, then their
        image encoders, an upscaler, and detectors."""
        resolved = self.resolved
        named = {
            AssetRole.LORA: resolved.all_loras,
            AssetRole.TEXTUAL_INVERSION: resolved.textual_inversions,
            AssetRole.CONTROLNET: [one for one in resolved.controls if not one.t2i_adapter],
            AssetRole.T2I_ADAPTER: [one for one in resolved.controls if one.t2i_adapter],
            AssetRole.IP_ADAPTER: resolved.image_prompts,
        }
        adapters = dict.fromkeys(
            Asset(role=role, model_id=one.model_id) for role, some in named.items() for one in some
        )
        own = "" if resolved.hires_pass is None else resolved.hires_pass.model_id
        passes = {AssetRole.REFINER: resolved.refiner and resolved.refiner.model_id, AssetRole.HIRES: own}
        encoders = dict.fromkeys(one.encoder_model_id for one in resolved.image_prompts)
        return (
            Asset(role=AssetRole.BASE, model_id=resolved.runs_as),
            *(Asset(role=role, model_id=model_id) for role, model_id in passes.items() if model_id),
            *adapters,
            *(Asset(role=AssetRole.IMAGE_ENCODER, model_id=name) for name in encoders),
            *((Asset(role=AssetRole.UPSCALER, model_id=upscaler),) if (upscaler := upscaler_of(resolved)) else ()),
            *(Asset(role=AssetRole.DETECTOR, model_id=name) for name in detectors_of(resolved)),
        )

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The models of the generation, and those that only lend components."""
        lent = (one.model_id for one in self.resolved.components if one.model_id)
        named = (asset.model_id for asset in self.assets)
        return tuple(dict.fromkeys((self.resolved.model_id, *named, *lent)))

    def order(self, order_id: str, supplies: Supplies) -> GenerateOrder:
        """The order with the previews that the job's watchers want."""
        given = Given(
            model=supplies.model(self.resolved.runs_as),
            resolved=self.resolved,
            # At least one picture is made again, so that the result names the components that computed it.
            made=min(supplies.made, len(self.resolved.seeds) - 1),
            kept=supplies.kept,
            picture=supplies.picture,
            mask=supplies.mask,
            upscaler=supplies.whole(upscaler) if (upscaler := upscaler_of(self.resolved)) else None,
            detectors=tuple(supplies.whole(one.detector_model_id) for one in self.resolved.detail_passes),
            latents=supplies.latents,
            later=tuple(map(supplies.model, models_of(self.resolved)[1:])),
            loras=tuple(supplies.adapter(lora.model_id) for lora in self.resolved.loras),
            region_loras=tuple(
                tuple(supplies.adapter(lora.model_id) for lora in region.loras) for region in self.resolved.regions
            ),
            words=tuple(supplies.adapter(word.model_id) for word in self.resolved.textual_inversions),
            controls=tuple(
                GivenControl(
                    model=supplies.whole(one.model_id),
                    map=files.map,
                    region=files.region,
                    hidden=files.hidden,
                    enlarged=files.enlarged,
                )
                for one, files in zip(self.resolved.controls, supplies.controls, strict=True)
            ),
            image_prompts=tuple(
                GivenImagePrompt(
                    model=supplies.whole(one.model_id),
                    encoder=supplies.whole(one.encoder_model_id),
                    images=files.images,
                    region=files.region,
                    negative_image=files.negative_image,
                )
                for one, files in zip(self.resolved.image_prompts, supplies.image_prompts, strict=True)
            ),
            regions=supplies.regions,
            references=supplies.references,
            fallback=supplies.fallback,
            execution=supplies.narrower or AS_USUAL,
        )
        return GenerateOrder(order_id=order_id, given=given, previews=supplies.previews(self.resolved.previews))

    def result(self, reported: Reported) -> GenerationResult:
        """The pictures, and the components that computed them."""
        return GenerationResult(
            images=reported.images,
            resolved=self.resolved,
            precisions=tuple((one.id, one.precision) for one in reported.loaded.components) if reported.loaded else (),
            offload=reported.loaded.offload if reported.loaded else "",
            quantization=reported.loaded.quantization if reported.loaded else "",
            offload_budget_bytes=reported.loaded.offload_budget_bytes if reported.loaded else 0,
            ways=reported.loaded.ways if reported.loaded else AS_THE_SERVER_CHOOSES,
            libraries=reported.libraries,
        )
