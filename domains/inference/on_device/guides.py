"""What guides one job beside its prompts: ControlNets, T2I adapters and IP-Adapters, on their way and in its steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.on_device.controls import (
    NO_CONTROLS,
    NO_FEATURES,
    Controls,
    ControlsOfJob,
    Features,
    FeaturesOfJob,
    Reading,
    SeePicture,
)
from domains.inference.on_device.image_prompts import NO_IMAGE_PROMPTS, ImagePrompts, ImagePromptsOfJob
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.networks.unet import UNet
from domains.model.on_device import OnDeviceModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Guides:
    """What guides the steps of a job, with all that it reads."""

    controls: Controls = NO_CONTROLS
    features: Features = NO_FEATURES
    """Of T2I adapters."""
    image_prompts: ImagePrompts = NO_IMAGE_PROMPTS

    def tensors(self) -> Sequence[Tensor]:
        """The device tensors that it holds for the job alone."""
        return [*self.controls.tensors(), *self.features.tensors(), *self.image_prompts.tensors()]


NO_GUIDES = Guides()


class GuidesOfJob:
    """What guides one job, on its way."""

    def __init__(self, job_id: str, given: Given, first: ResolvedGeneration, pool: NetworkPool) -> None:
        """`first`: what the first pass makes. A refiner that computes all steps has no controls."""
        controls = given.controls if first.controls else ()
        self._controls = ControlsOfJob(job_id, first, controls, pool)
        self._features = FeaturesOfJob(job_id, first, controls, pool)
        self._image_prompts = ImagePromptsOfJob(job_id, given.resolved, given.image_prompts, pool)
        self._networks = [one.networks for one in (self._controls, self._features, self._image_prompts)]

    @property
    def ready(self) -> bool:
        """Whether `bring` has something to do."""
        return all(one.ready for one in self._networks)

    def wait(self) -> bool:
        """Wait until a network can be loaded further, or at least for a while; False if none is on its way."""
        return any(one.wait() for one in self._networks)

    def bring(self, now: ResolvedGeneration, base: OnDeviceModel, unet: UNet | None) -> bool:
        """Load a piece of the networks that a pass (`now`) needs. Returns whether all are there. `unet`: the model's; None:
        it has none. Raises MODEL_INCOMPATIBLE for one that does not fit the model, and as loads of models."""
        if now.controls and not (self._controls.bring(base) and self._features.bring(base)):
            return False
        return self._image_prompts.bring(base, unet)

    def made(
        self,
        now: ResolvedGeneration,
        reading: Reading,
        base: OnDeviceModel,
        unet: UNet | None,
        latent_size: tuple[int, int],
        see: SeePicture,
    ) -> Guides:
        """What guides a pass (`now`), with all maps and pictures read. `latent_size`: (h, w). `see`: the VAE. Enqueues."""
        controlled = bool(now.controls)
        return Guides(
            controls=self._controls.made(reading, base, see) if controlled else NO_CONTROLS,
            features=self._features.made(base, unet, latent_size) if controlled else NO_FEATURES,
            image_prompts=self._image_prompts.made(now, base, unet),
        )

    def leave(self) -> None:
        """Give all networks back."""
        for one in self._networks:
            one.leave()
