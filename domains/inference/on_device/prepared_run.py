"""A generation before its first step: its prompts are encoded, then the picture that it starts from, if it has one."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from msgspec import structs
from torch import Tensor

from domains.errors import DataLoss, FailedPrecondition, ResourceExhausted
from domains.imaging.masks import Pixels
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.adapters import NO_ADAPTERS, asked_of
from domains.inference.on_device.checkpoint import Handed, packed, packed_before, pass_of, unpack
from domains.inference.on_device.conditioning import Conditioned, condition
from domains.inference.on_device.families.family import Family, KeepOn, PictureLatents
from domains.inference.on_device.fence import to_host
from domains.inference.on_device.forwards import Forwards
from domains.inference.on_device.guides import NO_GUIDES, GuidesOfJob
from domains.inference.on_device.in_flight import InFlight
from domains.inference.on_device.inpainting import Masked, channels_of, hidden_in, masked_of
from domains.inference.on_device.input_picture import read_pixels, read_sized
from domains.inference.on_device.latent_file import read_latents
from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.networks.unet import UNet
from domains.inference.on_device.numeric_failures import not_encoded
from domains.inference.on_device.preview_writer import PreviewWriter
from domains.inference.on_device.regions import region_maps
from domains.inference.on_device.resources import Resources
from domains.inference.on_device.scene import Scene
from domains.inference.on_device.tensor_bytes import bytes_of
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.trajectory import Trajectory, begin
from domains.inference.on_device.upscaling import UpscalerOfJob
from domains.inference.on_device.wrapping import wrapping
from domains.inference.outcome import CheckpointReady, Report
from domains.inference.pass_plan import Pass, PassKind, passes_of
from domains.model.families.unet import INPAINTING
from domains.progress import Degraded, Stage, Unit


class Canvas(NamedTuple):
    """A picture that a run has made itself, and the part of it to make anew."""

    pixels: Pixels
    """(height, width, 3)."""
    levels: Pixels
    """(height, width): the mask, 255 for what is made anew."""


class PreparedRun(LoadRun):
    """A run up to its first step. Owns the tensors that the steps need: dropping the object frees them."""

    _loads_only = False

    def __init__(
        self,
        job_id: str,
        given: Given,
        resources: Resources,
        tell: Callable[[Report], None],
    ) -> None:
        super().__init__(job_id, given.model, resources, tell, given.execution, given.later)
        self.given = given
        self.passes = passes_of(given.resolved)
        """Computed one after the other."""
        self.pass_index = pass_of(given.kept, len(self.passes))
        """Place of the present pass."""
        self._handed: Handed | None = None
        """What the pass before has made. None: this is the first, or it has begun."""
        self._returned: Tensor | None = None
        """(pictures, channels, h/8, w/8) on the CPU: the latents to hand out. None: none, or they are not there yet."""
        self.trajectory: Trajectory | None = None
        self._adapters = NO_ADAPTERS
        self._guides_of_job = GuidesOfJob(job_id, given, self.passes, resources.networks)
        self._guides = NO_GUIDES
        self._upscaler = UpscalerOfJob(job_id, given, resources.networks)
        self._hardware = resources.hardware
        self._in_flight = InFlight()
        self._previews = PreviewWriter(given.resolved, resources.files)
        self._kept: KeptFile | CheckpointReady | None = given.kept
        """Progress to continue from. None: none, or the run has continued from it."""
        self._forwards = Forwards.ALL
        """What shares a forward in the trajectory that continues."""
        self._conditioned: Conditioned | None = None
        """Set only between conditioning and the beginning of the trajectory."""
        self._drawing: Future[Scene] | None = None
        """See `scene`."""
        self._canvas: Canvas | None = None
        """The picture to start from. None: `given` has it, or there is none."""

    def _take_up(self, given: Given, passes: tuple[Pass, ...], canvas: Canvas) -> None:
        """Begin with the passes of another generation, over a picture that the run has made, with the models that are
        there."""
        self._drop()
        self.given, self.passes, self.pass_index = given, passes, 0
        self._guides_of_job = GuidesOfJob(self.id, given, passes, self._resources.networks)
        self._upscaler = UpscalerOfJob(self.id, given, self._resources.networks)
        self._kept, self._drawing, self._canvas = None, None, canvas

    @property
    def resolved(self) -> ResolvedGeneration:
        """The generation of the present pass."""
        return self.passes[self.pass_index].resolved

    @property
    def _model_index(self) -> int:
        """See `LoadRun`."""
        return self.passes[self.pass_index].model_index

    @property
    def codec(self) -> Family:
        """The family's view of the model whose VAE the present pass has: a refiner's is that of the base."""
        present = self.passes[self.pass_index]
        return self._brought(0 if present.kind is PassKind.REFINER else present.model_index)[1]

    @property
    def has_next_pass(self) -> bool:
        """Whether another pass follows."""
        return self.pass_index + 1 < len(self.passes)

    @property
    def _unet(self) -> UNet | None:
        """The denoiser, if it is a U-Net."""
        return getattr(self.family, "unet", None)

    @property
    def walking(self) -> Trajectory:
        """The trajectory, which exists from conditioning to decoding."""
        if self.trajectory is None:
            raise RuntimeError(f"job {self.id} has no latents while {self.stage}")
        return self.trajectory

    @property
    def ready(self) -> bool:
        """Whether a unit before the first step can be enqueued now."""
        return (
            super().ready
            and self._guides_of_job.ready
            and self._upscaler.network.ready
            and (self._drawing is None or self._drawing.done())
        )

    def wait_for_device(self) -> bool:
        """See `LoadRun`; waits for a network that guides, too."""
        return super().wait_for_device() or self._guides_of_job.wait() or self._upscaler.network.wait()

    def waiting_for(self) -> list[Future[Any]]:
        """The future of the scene, while another thread draws it."""
        return [] if self._drawing is None or self._drawing.done() else [self._drawing]

    def prepare(self, keep_on: KeepOn) -> None:
        """Do the next unit before the first step: load a piece of a network that guides, encode the prompts, or the picture
        to start from. Raises what `keep_on` raises."""
        if self._conditioned is None:
            guides = self._guides_of_job.bring(self.pass_index, lambda index: self._brought(index)[0], self._unet)
            # In the first pass, too: its faults are found before the first step.
            if guides and self._upscaler.bring(self.loaded):
                self._condition(keep_on)
        elif self._handed is not None:
            self._begin_from(self._handed, self._conditioned, keep_on)
        else:
            self._encode_picture(self._conditioned, keep_on)

    def _begin_from(self, handed: Handed, conditioned: Conditioned, keep_on: KeepOn) -> None:
        """Enqueue the beginning of a pass that follows another one. Raises what `keep_on` raises."""
        raise NotImplementedError

    def _condition(self, keep_on: KeepOn) -> None:
        """Encode the prompts and the pictures that the model sees; without a picture to start from, draw the noise too."""
        if self.stage is not Stage.CONDITIONING:
            self._enter(Stage.CONDITIONING)
        # Text encoders that take turns come back from their files first.
        self._note(Stage.CONDITIONING, 0, 0, Unit.IMAGES)
        self._hardware.before_unit(self.id, Stage.CONDITIONING)
        # Of the first pass's size: each layer brings them to its own.
        maps = region_maps(self.given.resolved, self.given.regions, self.device)
        asked = asked_of(_of_pass(self.given, self.resolved), maps)
        self._adapters = self._resources.adapters.adapters(asked, self.loaded)
        of_job = self._adapters, maps, self._pictures_seen(keep_on)
        found = condition(self.loaded, self.family, self.resolved, self._resources.prompts, *of_job)
        self._try_later_passes(maps)
        _, height, width = self.family.latent_shape(self.resolved.width_px, self.resolved.height_px)
        of_pass = self.pass_index, self.resolved, found.renew, self.loaded, self._unet, (height, width)

        def see(pixels: Tensor, *, hidden: Tensor | None = None) -> Tensor:
            return self._encoded([pixels], keep_on, hidden)[0]

        self._guides = self._guides_of_job.made(*of_pass, see)
        self.meter.cache_hits += found.cache_hits
        for degraded in found.degradations:
            self._degrade(degraded)
        if self._previews.asked:
            self.codec.prepare_previews()
        self._conditioned = found
        if self._kept is not None and self._continued(trajectory := self._begun(found)):
            self._denoise(trajectory)
        elif self.pass_index and self._handed is None:
            # The checkpoint could not be read.
            self.pass_index, self._conditioned = 0, None
        elif not self.pass_index and self.given.latents is not None:
            self._denoise(self._begun(found, self._given_latents(self.given.latents)))
        elif not self.pass_index and self.resolved.init_image is None:
            self._denoise(self._begun(found))

    def _try_later_passes(self, maps: Sequence[Tensor]) -> None:
        """Raise the faults of later passes' prompts, sizes and controls before the first step. `maps`: see `region_maps`."""
        for place, one in enumerate(self.passes[self.pass_index + 1 :], self.pass_index + 1):
            loaded, family = self._brought(one.model_index)
            adapters = self._adapters if one.model_index == self._model_index else NO_ADAPTERS
            condition(loaded, family, one.resolved, self._resources.prompts, adapters, maps)
            _, height, width = family.latent_shape(one.resolved.width_px, one.resolved.height_px)
            self._guides_of_job.try_later(place, loaded, getattr(family, "unet", None), (height, width))

    def _given_latents(self, file: KeptFile) -> PictureLatents:
        shape = self.family.latent_shape(self.resolved.width_px, self.resolved.height_px)
        latents = read_latents(file, shape, len(self.resolved.seeds), self.device)
        return PictureLatents(mean=latents, deviation=None)

    def _pictures_seen(self, keep_on: KeepOn) -> Sequence[Tensor]:
        """Latents of what a model made for editing sees beside the prompt."""
        pairs = zip(self.given.references, self.resolved.references, strict=True)
        sized = [read_sized(file, (one.width_px, one.height_px)) for file, one in pairs]
        return self._encoded(sized, keep_on) if sized else ()

    def _encoded(self, pictures: Sequence[Tensor], keep_on: KeepOn, hidden: Tensor | None = None) -> Sequence[Tensor]:
        """Latents of pictures (h, w, 3) that a network sees in all steps. `hidden`: see `Family.encode_picture`. Raises what
        `keep_on` raises."""
        began = self._hardware.mark()
        found = list[Tensor]()
        for pixels in pictures:
            self._note(Stage.CONDITIONING, len(found), len(pictures), Unit.IMAGES)
            found.append(self.family.encode_reference(to_device(pixels, self.device), keep_on, hidden))
        finite = to_host(torch.stack([torch.isfinite(one).all() for one in found]).all())
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.CONDITIONING, fence.device_s())
            if not finite.item():
                raise not_encoded(self.resolved)

        self._in_flight.add(fence, deliver)
        return found

    def _encode_picture(self, conditioned: Conditioned, keep_on: KeepOn) -> None:
        """Enqueue the encoding of the picture to start from, and begin there."""
        if self.stage is not Stage.ENCODING_INPUT:
            self._enter(Stage.ENCODING_INPUT)
        self._note(Stage.ENCODING_INPUT, 0, 1, Unit.IMAGES)
        self._hardware.before_unit(self.id, Stage.ENCODING_INPUT)
        began = self._hardware.mark()
        pixels = to_device(self._seen(), self.device)
        with wrapping(self.resolved.wraps):
            picture, masked = self.codec.encode_picture(pixels, keep_on), self._masked(pixels, keep_on)
        trajectory = self._begun(conditioned, picture, masked)
        finite = to_host(torch.isfinite(trajectory.latents).all())
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.ENCODING_INPUT, fence.device_s())
            if not finite.item():
                raise not_encoded(self.resolved)

        self._in_flight.add(fence, deliver)
        self._progress(Stage.ENCODING_INPUT, 1, 1, Unit.IMAGES)
        self._denoise(trajectory)

    def _masked(self, pixels: Tensor, keep_on: KeepOn) -> Masked | None:
        """The part that is made anew, with what a model made for inpainting reads of it. None: there is no mask."""
        if self.scene is None:
            return None
        shares, shape = self.scene.shares, self.family.latent_shape(self.resolved.width_px, self.resolved.height_px)
        if self.model.variant != INPAINTING:
            return masked_of(self.resolved, self.scene, shape)
        seen = self.family.encode_picture(pixels, keep_on, hidden_in(shares))
        return masked_of(self.resolved, self.scene, shape, channels_of(self.family, shares, seen, shape))

    def _begun(
        self, conditioned: Conditioned, picture: PictureLatents | None = None, masked: Masked | None = None
    ) -> Trajectory:
        config, device = self.loaded.scheduler_config, self.loaded.device
        # The encoded prompts are held only if they will be read again.
        renew = conditioned.renew if self._adapters.later is not None or conditioned.renew.changes else None
        of_job = self._adapters, renew, masked, self._guides
        return begin(self.family, self.resolved, config, conditioned.conditions, device, picture, *of_job)

    def _denoise(self, trajectory: Trajectory) -> None:
        trajectory.forwards, self._forwards = self._forwards, Forwards.ALL
        self.trajectory, self._conditioned, self._handed = trajectory, None, None
        self._enter(self.passes[self.pass_index].stage)
        self._progress(self.stage, trajectory.index, trajectory.steps, Unit.STEPS)

    def _pixels(self) -> Tensor:
        if self._canvas is not None:
            return torch.from_numpy(self._canvas.pixels)
        if self.given.picture is None:
            raise RuntimeError(f"job {self.id} has no picture to start from")
        return read_pixels(self.given.picture, self.resolved)

    def _seen(self) -> Tensor:
        """The pixels that the encoder sees."""
        return self._pixels() if self.scene is None else torch.from_numpy(self.scene.start)

    @property
    def scene(self) -> Scene | None:
        """The picture of which a part is made anew. None: it does not grow, and there is no mask."""
        return None if self._drawing is None else self._drawing.result()

    def scene_is_there(self) -> bool:
        """Whether the scene can be read. Its masks are drawn beside the loop: those of a large picture take a second."""
        if self.resolved.mask is None and self.resolved.outpaint is None:
            return True
        if self._drawing is None:
            self._drawing = self._resources.files.submit(self._drawn)
        return self._drawing.done()

    def _drawn(self) -> Scene:
        levels = None if self._canvas is None else self._canvas.levels
        if self.given.mask is not None:
            levels = read_pixels(self.given.mask, self.resolved, ()).numpy()
        scene = Scene(self.resolved, self._pixels().numpy(), levels)
        scene.draw()
        return scene

    def _continued(self, trajectory: Trajectory) -> bool:
        """Continue from the kept progress, if there is some. A run whose progress is unusable begins at the start, and
        reports that."""
        kept, self._kept = self._kept, None
        if kept is None:
            return False
        try:
            self._handed, self._returned = unpack(kept, self.resolved, trajectory, self.pass_index)
        except (DataLoss, FailedPrecondition, ResourceExhausted) as error:
            self._degrade(Degraded(kind="checkpoint_dropped", reason=str(error.reason), detail=error.message))
            return False
        return self._handed is None

    def _degrade(self, degraded: Degraded) -> None:
        self.meter.degradations.append(degraded)
        self._tell(degraded)

    def keep(self) -> CheckpointReady | None:
        """The progress, once the device has finished what is in flight. None: there is none yet. Raises what ended a
        step, for example NUMERIC_FAILURE."""
        if isinstance(self._kept, CheckpointReady):
            return self._kept
        before = sum(one.resolved.computed_steps for one in self.passes[: self.pass_index])
        if self.trajectory is not None:
            self.settle_all()
            self._in_flight.settle()
            data = packed(self.trajectory, self.resolved, self.pass_index, self._returned)
            return CheckpointReady(step=before + self.trajectory.index, data=data)
        if self._handed is not None:
            data = packed_before(self._handed, self.resolved, self.pass_index, self._returned)
            return CheckpointReady(step=before, data=data)
        return None

    def begin_again(self) -> None:
        """See `LoadRun`. The run goes on where it is. Raises as `keep`."""
        self.settle_all()
        self._kept = self.keep() or self._kept
        self._forwards = self._forwards if self.trajectory is None else self.trajectory.forwards
        self._in_flight.settle()
        self._drop()
        super().begin_again()

    def tensors(self) -> list[Tensor]:
        """The device tensors that the run holds."""
        handed = [] if self._handed is None else [self._handed.latents]
        held = [*self._adapters.tensors(), *self._guides.tensors(), *handed]
        return held if self.trajectory is None else self.trajectory.tensors()

    def held_bytes(self) -> int:
        """Bytes of these tensors. A tensor that is held twice counts once, and so does a storage whose parts overlap."""
        return super().held_bytes() + bytes_of(self.tensors())

    def _drop(self) -> None:
        """Drop the tensors that the steps needed, and leave the networks."""
        self._drop_pass()
        self._guides_of_job.leave()

    def _drop_pass(self) -> None:
        """Drop the tensors that the steps of the present pass needed, and leave the networks that no later one has."""
        self.trajectory = self._conditioned = self._handed = None
        self._adapters, self._guides = NO_ADAPTERS, NO_GUIDES
        self._guides_of_job.leave_pass(self.pass_index)
        self._upscaler.network.leave()


def _of_pass(given: Given, resolved: ResolvedGeneration) -> Given:
    """What a pass was given; a refiner's has no LoRAs and no textual inversions."""
    return structs.replace(
        given,
        resolved=resolved,
        loras=given.loras if resolved.loras else (),
        words=given.words if resolved.textual_inversions else (),
    )
