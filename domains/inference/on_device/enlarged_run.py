"""A generation between two passes: what the pass before has made goes on as it is, or is enlarged."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from torch import Tensor

from domains.errors import ErrorReason
from domains.inference.given import Given
from domains.inference.hires import ResolvedHires
from domains.inference.on_device.checkpoint import Handed
from domains.inference.on_device.conditioning import Conditioned
from domains.inference.on_device.enlarging import enlarged_latents, enlarged_pixels, joined
from domains.inference.on_device.families.family import Family, KeepOn, PictureLatents
from domains.inference.on_device.fence import to_host
from domains.inference.on_device.numeric_failures import not_decoded
from domains.inference.on_device.prepared_run import PreparedRun
from domains.inference.on_device.resources import Resources
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.upscaling import Growing, upscaled_tile
from domains.inference.on_device.wrapping import wrapping
from domains.inference.outcome import Report
from domains.inference.pass_plan import PassKind
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from domains.progress import Degraded, Stage, Unit


class EnlargedRun(PreparedRun):
    """A run up to the first step of each of its passes."""

    def __init__(self, job_id: str, given: Given, resources: Resources, tell: Callable[[Report], None]) -> None:
        super().__init__(job_id, given, resources, tell)
        self._tile: int | None = None
        """Edge in latent pixels of the tiles for which memory was too short otherwise. None: it was not."""
        self._larger: list[Future[Tensor]] = []
        """The decoded pictures of the pass before, enlarged: (h, w, 3), uint8. Empty outside of the stage."""
        self._growing: Growing | None = None
        """The decoded picture that an upscaler enlarges now."""

    def _begin_from(self, handed: Handed, conditioned: Conditioned, keep_on: KeepOn) -> None:
        """Go on from what the pass before has made: as it is, or enlarged."""
        if self.passes[self.pass_index].kind is PassKind.REFINER:
            trajectory = self._begun(conditioned, PictureLatents(mean=handed.latents, deviation=None))
            trajectory.go_on_with_noise(handed.noise)
            self._denoise(trajectory)
            return
        hires = self.given.resolved.hires_pass
        assert hires is not None, "the second pass follows the first one, or its refiner"
        if self.stage is not Stage.ENLARGING:
            self._enter(Stage.ENLARGING)
        latents = handed.latents
        self._note(Stage.ENLARGING, len(self._larger), len(latents), Unit.IMAGES)
        self._hardware.before_unit(self.id, Stage.ENLARGING)
        began = self._hardware.mark()
        if self._growing is not None:
            self._enlarge_tile(self._growing, hires, keep_on)
            return
        if hires.of_pixels and len(self._larger) < len(latents):
            self._enlarge(len(self._larger), latents, hires, keep_on)
            return
        trajectory = self._begun(conditioned, self._enlarged(latents, hires, keep_on))
        self._larger = []
        self._upscaler.network.leave()
        fence = self._hardware.fence(began)
        self._in_flight.add(fence, lambda: self.meter.device_was_busy(Stage.ENLARGING, fence.device_s()))
        self._progress(Stage.ENLARGING, len(latents), len(latents), Unit.IMAGES)
        self._denoise(trajectory)

    def _enlarge(self, index: int, latents: Tensor, hires: ResolvedHires, keep_on: KeepOn) -> None:
        """Enqueue the decoding of a picture by the first model's VAE. When the device has finished, another thread enlarges
        its pixels, or an upscaler does, tile by tile."""
        began, first, picture = self._hardware.mark(), self._brought(0)[1], latents[index : index + 1]
        decoded, whole = self._decoded(picture, keep_on, first)
        pixels, finite = to_host(decoded)[0], to_host(whole)
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.ENLARGING, fence.device_s())
            shown = pixels if finite.item() else self._decoded_again(index, picture, first)
            if hires.upscaler_model_id:
                self._growing = Growing(shown, (hires.width_px, hires.height_px))
            else:
                self._resample(shown, hires)

        self._in_flight.add(fence, deliver)

    def _enlarge_tile(self, growing: Growing, hires: ResolvedHires, keep_on: KeepOn) -> None:
        """Enqueue the next tile of a picture that an upscaler enlarges; without one, another thread brings it to the size.
        Raises what `keep_on` raises."""
        net = self._upscaler.net
        tile = growing.next_tile(net)
        if tile is None:
            self._growing = None
            self._resample(growing.pixels, hires)
            return
        began = self._hardware.mark()
        found = to_host(upscaled_tile(net, growing.pixels, tile, self.device, keep_on))
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.ENLARGING, fence.device_s())
            growing.put(tile, found, net.scale)

        self._in_flight.add(fence, deliver)

    def _resample(self, pixels: Tensor, hires: ResolvedHires) -> None:
        """Let another thread bring pixels to the size of the second pass."""
        size = hires.width_px, hires.height_px
        self._larger.append(self._resources.files.submit(enlarged_pixels, pixels, size, hires.filter))

    def _enlarged(self, latents: Tensor, hires: ResolvedHires, keep_on: KeepOn) -> PictureLatents:
        """Where the second pass begins: enlarged latents, or what the encoder makes of enlarged pixels."""
        if not hires.of_pixels:
            size = self.family.latent_shape(hires.width_px, hires.height_px)[1:]
            return PictureLatents(mean=enlarged_latents(latents, size, hires.filter), deviation=None)
        with wrapping(self.resolved.wraps):
            return joined(
                [self.codec.encode_picture(to_device(one.result(), self.device), keep_on) for one in self._larger]
            )

    def _decoded(self, latents: Tensor, keep_on: KeepOn, codec: Family) -> tuple[Tensor, Tensor]:
        """See `Family.decode`."""
        with wrapping(self.resolved.wraps):
            return codec.decode(latents, keep_on, self._tile_of(codec, latents))

    def _tile_of(self, codec: Family, latents: Tensor) -> int | None:
        """Edge in latent pixels of the tiles in which these latents are decoded. None: as a whole."""
        if self._tile is not None:
            return self._tile
        tile_px = self._ways_of(codec).taken.vae_tile_px
        tile = codec.latent_shape(tile_px, tile_px)[1]
        return tile if 0 < tile < max(latents.shape[2:]) else None

    def _ways_of(self, codec: Family) -> Ways:
        """How the model of a codec computes. One that the run has given back meanwhile: as usual."""
        return next((loaded.execution.ways for loaded, family in self._there if family is codec), AS_THE_SERVER_CHOOSES)

    def _decoded_again(self, index: int, latents: Tensor, codec: Family) -> Tensor:
        """The pixels of a picture that came out with values that are no numbers, decoded in float32, and reported. Raises
        NUMERIC_FAILURE: such a value would be a black place in the picture."""
        with wrapping(self.resolved.wraps):
            again = codec.decode_in_float32(latents, self._tile_of(codec, latents))
        if again is None or not again[1].item():
            raise not_decoded(index, self.resolved)
        detail = f"picture {index} has values that are no numbers in the VAE's precision; it was decoded in float32"
        self._degrade(Degraded(kind="decode_in_float32", reason=str(ErrorReason.NUMERIC_FAILURE), detail=detail))
        return again[0][0].cpu()

    def waiting_for(self) -> list[Future[Any]]:
        """See `PreparedRun`; also pictures that are being enlarged."""
        return [*super().waiting_for(), *self.being_enlarged]

    @property
    def being_enlarged(self) -> list[Future[Tensor]]:
        """Pictures that another thread brings to their size."""
        return [one for one in self._larger if not one.done()]

    def _drop_pass(self) -> None:
        """See `PreparedRun`."""
        self._larger, self._growing = [], None
        super()._drop_pass()
