"""What guides one job beside its prompts: ControlNets, T2I adapters and IP-Adapters, on their way and in its steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace
from torch import Tensor

from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given, GivenControl
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
from domains.inference.on_device.network_pool import Borrowed, NetworkPool
from domains.inference.on_device.networks.unet import UNet
from domains.inference.pass_plan import Pass, PassKind
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


class _ControlsOfPass:
    """The controls of one pass, each with its map in the size of that pass."""

    def __init__(self, job_id: str, given: Given, one: Pass, pool: NetworkPool) -> None:
        again = one.kind is PassKind.HIRES
        # A refiner has no controls.
        files = given.controls if one.resolved.controls else ()
        files = [_enlarged(file) for file in files] if again else files
        name, sized_by = (f"{job_id} again", "generation.hires_pass.size") if again else (job_id, "generation")
        self.nets = ControlsOfJob(name, one.resolved, files, pool)
        self.features = FeaturesOfJob(name, one.resolved, files, pool, sized_by)
        self.model_index = one.model_index
        self.networks = [self.nets.networks, self.features.networks]

    def bring(self, base: OnDeviceModel) -> bool:
        """See `GuidesOfJob`."""
        return self.nets.bring(base) and self.features.bring(base)


def _enlarged(given: GivenControl) -> GivenControl:
    """What the second pass is given for a control."""
    files = given.enlarged
    if files is None:
        raise RuntimeError(f"control {given.model.id} has no map for the second pass")
    return replace(given, map=files.map, region=files.region, hidden=files.hidden, enlarged=None)


class GuidesOfJob:
    """What guides one job, on its way. The ControlNets of later passes come with those of the first: their faults are found
    before the first step, and what both use is loaded once."""

    def __init__(self, job_id: str, given: Given, passes: Sequence[Pass], pool: NetworkPool) -> None:
        self._controls = [_ControlsOfPass(job_id, given, one, pool) for one in passes]
        self._image_prompts = ImagePromptsOfJob(job_id, given.resolved, given.image_prompts, pool)
        self._prompted = [bool(one.resolved.image_prompts) for one in passes]
        """Whether pictures guide a pass. A refiner has no IP-Adapter."""

    @property
    def _networks(self) -> Sequence[Borrowed]:
        return [*(one for some in self._controls for one in some.networks), *self._image_prompts.networks]

    @property
    def ready(self) -> bool:
        """Whether `bring` has something to do."""
        return all(one.ready for one in self._networks)

    def wait(self) -> bool:
        """Wait until a network can be loaded further, or at least for a while; False if none is on its way."""
        return any(one.wait() for one in self._networks)

    def bring(self, index: int, base_of: Callable[[int], OnDeviceModel], unet: UNet | None) -> bool:
        """Load a piece of the networks that the pass at this place and later ones need. Returns whether all are there.
        `base_of`: the run's models by their place. `unet`: that of the pass's model; None: it has none. Raises
        MODEL_INCOMPATIBLE for one that does not fit the model, and as loads of models."""
        if not all(one.bring(base_of(one.model_index)) for one in self._controls[index:]):
            return False
        if not self._prompted[index]:
            return True
        return self._image_prompts.bring(base_of(self._controls[index].model_index), unet)

    def try_later(self, index: int, base: OnDeviceModel, unet: UNet | None, latent_size: tuple[int, int]) -> None:
        """Raise the faults of what guides a later pass; see `made`. Its T2I adapters leave the device."""
        self._controls[index].nets.check(base)
        self._controls[index].features.made(base, unet, latent_size)
        if self._prompted[index]:
            self._image_prompts.check(base, unet)

    def made(
        self,
        index: int,
        now: ResolvedGeneration,
        reading: Reading,
        base: OnDeviceModel,
        unet: UNet | None,
        latent_size: tuple[int, int],
        see: SeePicture,
    ) -> Guides:
        """What guides the pass at this place (`now`), with all maps and pictures read. `latent_size`: (h, w). `see`: the
        VAE. Enqueues."""
        controls = self._controls[index]
        return Guides(
            controls=controls.nets.made(reading, base, see),
            features=controls.features.made(base, unet, latent_size),
            image_prompts=self._image_prompts.made(now, base, unet) if self._prompted[index] else NO_IMAGE_PROMPTS,
        )

    def leave_pass(self, index: int) -> None:
        """Give the networks back that the pass at this place had, but those that a later pass has, too."""
        for one in (*self._controls[index].networks, *self._image_prompts.networks):
            one.leave()

    def leave(self) -> None:
        """Give all networks back."""
        for one in self._networks:
            one.leave()
