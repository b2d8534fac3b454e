"""One generation as a small state machine: loading → conditioning → encoding its input picture, if it has one →
denoising × n → decoding × pictures → encoding. `load_run.py` has the first stage, `prepared_run.py` what comes before the
first step, `enlarged_run.py` what lies between two passes, this file the rest.

`prepare`, `stepped` and `decode` enqueue one unit of work; `poll` reports what has ended and enters the next stage. None of
them waits.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import structlog
from torch import Tensor

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, Violation
from domains.imaging.masks import Pixels
from domains.inference.fallback import Rung
from domains.inference.generation import Determinism, Previews
from domains.inference.given import Given
from domains.inference.on_device.attending import parts_in_math
from domains.inference.on_device.checkpoint import Handed
from domains.inference.on_device.enlarged_run import EnlargedRun
from domains.inference.on_device.families.family import Family, KeepOn
from domains.inference.on_device.fence import Fence, to_host
from domains.inference.on_device.forwards import Forwards
from domains.inference.on_device.latent_file import latents_file
from domains.inference.on_device.numeric_failures import not_finite
from domains.inference.on_device.pictures import Pictures
from domains.inference.on_device.resources import Resources
from domains.inference.on_device.scene import Scene
from domains.inference.on_device.tiles import smaller_tile
from domains.inference.on_device.wrapping import NO_WRAPS
from domains.inference.outcome import LatentsReady, Report
from domains.inference.pass_plan import PassKind
from domains.model.execution import Execution
from domains.model.families import FAMILIES
from domains.progress import STEPPING, Degraded, Stage, Unit

_IN_FORWARDS = {
    Forwards.PICTURE: "the pictures are denoised one after the other",
    Forwards.ROW: "each picture is denoised without its prompt and then with it",
}
_log = structlog.get_logger()
_EMPTY_MASK = Degraded(
    kind="mask_empty",
    reason=str(ErrorReason.INVALID_FIELD),
    detail="the mask has no pixel to make anew, so the picture stays as it is; white, or black if inverted, is made anew",
    field="generation.mask.image",
)


class Run(EnlargedRun):
    """A running generation. Owns its tensors: dropping the object frees them."""

    def __init__(self, job_id: str, given: Given, resources: Resources, tell: Callable[[Report], None]) -> None:
        super().__init__(job_id, given, resources, tell)
        self._pictures = Pictures(given.resolved, resources.files, given.made)
        self._walked_steps = given.resolved.visited.stop
        """Steps of the walk that are done after the first pass."""
        self._told_in_math: set[str] = set()
        self._told_without_code: set[str] = set()
        self._one_by_one = False
        """Whether memory was too short to decode pictures together."""
        self.taken: tuple[Rung, ...] = ()
        """What was given up so far."""

    def show(self, previews: Previews) -> None:
        """Make these previews from now on; the pictures stay the same."""
        self._previews.show(previews)

    @property
    def denoising(self) -> bool:
        """Whether the next unit is a denoising step, which can be shared with other jobs."""
        return self.stage in STEPPING

    @property
    def alone(self) -> bool:
        """Whether no other job may share its forwards: its pictures must not depend on others, not even by their rounding,
        or a shared forward has no room."""
        return self.resolved.determinism is Determinism.EXACT or self.walking.forwards is not Forwards.ALL

    def rungs(self) -> list[Rung]:
        """What the run could still give up of its own in the present stage, for less memory."""
        found: list[Rung] = []
        if self.denoising and self.walking.smaller_forwards is not None:
            found.append(Rung.SMALLER_BATCH)
        if self.stage is Stage.DECODING and self._decoded_at_once > 1:
            found.append(Rung.SMALLER_BATCH)
        if self.could_offload or self._could_hold_less:
            found.append(Rung.OFFLOAD)
        if self.stage is Stage.LOADING and self.lower_precision:
            found.append(Rung.LOWER_PRECISION)
        decodes = self.stage in (Stage.DECODING, Stage.ENLARGING)
        # The edges of a tile must not fit together.
        tiles = decodes and self.resolved.wraps == NO_WRAPS and self._ways_of(self._decoder).vae_tiling is not False
        if tiles and self._smaller_tile() is not None:
            found.append(Rung.VAE_TILING)
        return found

    @property
    def computing(self) -> Sequence[str]:
        """Ids of the components that compute in the present stage."""
        if self.denoising:
            return [FAMILIES[self.loaded.family].denoiser.id]
        return list(self.loaded.tokenizers) if self.stage is Stage.CONDITIONING else ["vae"]

    @property
    def _could_hold_less(self) -> bool:
        """Whether more of the model that is on the device could wait in host memory, so that this stage has more room."""
        if not self.has_model:
            return False
        turns = self.loaded.turns
        return not self.loaded.execution.offload if turns is None else any(map(turns.could_hold_less, self.computing))

    def give_up(self, rung: Rung, why: DeviceOpsError) -> None:
        """Take a rung of `rungs`, and report it. A model that is on the device is offloaded by `Offloading`."""
        self.taken = (*self.taken, rung)
        match rung:
            case Rung.SMALLER_BATCH if self.stage is Stage.DECODING:
                self._one_by_one = True
                detail = "the pictures are decoded one after the other"
            case Rung.SMALLER_BATCH:
                self.walking.forwards = self.walking.smaller_forwards or Forwards.ROW
                detail = _IN_FORWARDS[self.walking.forwards]
            case Rung.OFFLOAD:
                execution = self.offloaded
                detail = execution.told_offload("the device")
                self.load_again(execution)
            case Rung.LOWER_PRECISION:
                precision = self.lower_precision
                detail = f"the model is loaded in {precision}, which changes the picture"
                # Encodings of a model that was here before have its old precision.
                self._resources.prompts.forget(self.next_model.id)
                self.load_again(
                    Execution(
                        precision=precision,
                        quantization=self._way.quantization,
                        offload=self._way.offload,
                        offload_budget_bytes=self._way.offload_budget_bytes,
                        ways=self._way.ways,
                    )
                )
            case _:
                self._tile = self._smaller_tile()
                detail = f"pictures are decoded in tiles of {self._tile} latent pixels, which fade into each other"
        self.tell_given_up(rung, detail, why)

    def tell_given_up(self, rung: Rung, detail: str, why: DeviceOpsError) -> None:
        """Report a rung. `detail`: what was given up, for people."""
        self._degrade(Degraded(kind=str(rung), reason=str(why.reason), detail=f"{detail}, since {why.message}"))

    def offloaded_by(self, execution: Execution, why: DeviceOpsError) -> None:
        """Count and report that the run's model, which is on the device, is loaded again as `execution` says."""
        self.taken = (*self.taken, Rung.OFFLOAD)
        self.tell_given_up(Rung.OFFLOAD, execution.told_offload("the device"), why)

    def _smaller_tile(self) -> int | None:
        latents = self.walking.latents if self._handed is None else self._handed.latents
        return smaller_tile(max(latents.shape[2:]), self._tile_of(self._decoder, latents))

    @property
    def _decoder(self) -> Family:
        """The family's view of the model whose VAE decodes in the present stage."""
        return self._brought(0)[1] if self.stage is Stage.ENLARGING else self.codec

    @property
    def _decoded_at_once(self) -> int:
        """How many pictures the next unit decodes."""
        index = self._pictures.next_to_decode
        together = not self._one_by_one and not self._ways_of(self.codec).taken.vae_slicing
        return self._pictures.total - index if together and index is not None else 1

    @property
    def ready(self) -> bool:
        """Whether a unit can be enqueued now."""
        match self.stage:
            case Stage.QUEUED | Stage.LOADING:
                return super().ready
            case Stage.CONDITIONING | Stage.ENCODING_INPUT:
                return self.trajectory is None and super().ready
            case Stage.ENLARGING:
                return self.trajectory is None and not self._in_flight and not self.being_enlarged
            case Stage.DENOISING | Stage.REFINING | Stage.HIRES | Stage.DETAILING:
                return not self._in_flight.full and not self.walking.done
            case Stage.DECODING:
                return not self._in_flight.full and self._pictures.next_to_decode is not None
            case _:
                return False

    @property
    def done(self) -> bool:
        """Whether every picture was reported."""
        return self._pictures.all_told

    def prepare(self, keep_on: KeepOn) -> None:
        """See `PreparedRun`. Without a step or a pixel to compute, the picture to start from is the result."""
        self._refuse_tiles_of_wraps()
        if self.pass_index:
            super().prepare(keep_on)
        elif not self.resolved.computed_steps and self.resolved.init_image is not None and not self.has_next_pass:
            self._give_back()
        elif not self.scene_is_there():
            return
        elif self.scene is not None and self.scene.empty:
            self._degrade(_EMPTY_MASK)
            self._give_back()
        else:
            super().prepare(keep_on)

    def _refuse_tiles_of_wraps(self) -> None:
        """Raise UNSUPPORTED_COMBINATION if the model decodes in tiles alone, and edges of the picture must fit together."""
        seamless = {"seamless_x": self.resolved.seamless_x, "seamless_y": self.resolved.seamless_y}
        if not any(seamless.values()) or not self._ways_of(self.codec).vae_tiling:
            return
        text = f"model {self.model.id} is loaded with vae_tiling, and edges that fit together have no tiles; load it without"
        wrong = [Violation(field=f"generation.{name}", message=text) for name, asked in seamless.items() if asked]
        raise InvalidRequest(wrong, ErrorReason.UNSUPPORTED_COMBINATION)

    def _give_back(self) -> None:
        pixels = self._pixels().numpy()
        while (index := self._pictures.next_to_decode) is not None:
            self._pictures.enqueued(index)
            self._finish(index, pixels, None)
        self._pictures_decoded()

    def _finish(self, index: int, pixels: Pixels, scene: Scene | None) -> None:
        """Begin to encode a decoded picture (height, width, 3). `scene`: the picture that it is a part of."""
        self._pictures.write(index, pixels, scene)

    def _pictures_decoded(self) -> None:
        """Enter the stage after the decoding of all pictures."""
        self._drop()
        self._enter(Stage.ENCODING)

    @property
    def pausable(self) -> bool:
        """Whether a pause can take effect now. The files of a finished picture are only written, which is soon over."""
        return self.stage is not Stage.ENCODING

    def stepped(self, share: float, finite: Tensor, passed: Callable[[], None]) -> Callable[[Fence], None]:
        """Enqueue what follows a step of the trajectory, or the first half of one. Returns what to call with the fence of
        all that was enqueued.

        `share`: the job's part of the device's time. `finite` (pictures,): whether the latents are numbers, valid behind the
        fence. `passed` is called when the device has finished.
        """
        trajectory = self.walking
        step, steps, whole, stage = trajectory.index, trajectory.steps, trajectory.between_steps, self.stage
        preview = self._preview(step, trajectory.x0) if whole and step < steps else None

        def deliver(device_s: float | None) -> None:
            sound = bool(finite.all())
            passed()
            if not sound:
                raise not_finite(step if whole else step + 1, self.resolved)
            self.meter.device_was_busy(stage, None if device_s is None else device_s * share)
            if not whole:
                return
            self.meter.steps_executed += 1
            self._progress(stage, step, steps, Unit.STEPS)
            if preview is not None:
                self._previews.write(step, preview)

        return lambda fence: self._in_flight.add(fence, lambda: deliver(fence.device_s()))

    @contextmanager
    def compiling(self) -> Generator[None]:
        """Be in the stage of compilation until exit."""
        before = self.stage
        self._enter(Stage.COMPILING)
        self._note(Stage.COMPILING, 0, 0, Unit.STEPS)
        try:
            yield
        finally:
            self._enter(before)

    def computed_without_code(self, reason: ErrorReason, why: str) -> None:
        """Report once that a model which is loaded to be compiled has computed steps as usual. `why`: for people."""
        if why not in self._told_without_code:
            self._told_without_code.add(why)
            detail = f"steps of model {self.model.id} are not computed with compiled code: {why}"
            self._degrade(Degraded(kind="compile", reason=str(reason), detail=detail))

    def decode(self, keep_on: KeepOn) -> None:
        """Enqueue the decoding of the next picture, or of all. Raises what `keep_on` raises."""
        first = self._pictures.next_to_decode
        if first is None:
            return
        behind = first + self._decoded_at_once
        self._note(Stage.DECODING, first, len(self.resolved.seeds), Unit.IMAGES)
        self._hardware.before_unit(self.id, Stage.DECODING)
        began = self._hardware.mark()
        latents = self.walking.latents[first:behind]
        decoded, whole = self._decoded(latents, keep_on, self.codec)
        pixels, finite = to_host(decoded), to_host(whole)
        self._pictures.enqueued(behind - 1)
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.DECODING, fence.device_s())
            for place, index in enumerate(range(first, behind)):
                one = latents[place : place + 1]
                shown = pixels[place] if finite[place] else self._decoded_again(index, one, self.codec)
                self._progress(Stage.DECODING, index + 1, len(self.resolved.seeds), Unit.IMAGES)
                self._finish(index, shown.numpy(), self.scene)

        self._in_flight.add(fence, deliver)

    def poll(self) -> None:
        """Report what has ended; enter the next stage when this one has ended."""
        self._tell_other_attention()
        if not self.settle():
            return
        self._in_flight.deliver_passed()
        if not self._in_flight:
            self._move_on()
        for preview in self._previews.ready():
            self._tell(preview)
        for image in self._pictures.ready():
            self._tell_latents(image.index)
            self._tell(image)
            self._progress(Stage.ENCODING, image.index + 1, self._pictures.total, Unit.IMAGES)

    def wait_for_device(self) -> bool:
        """Wait for the oldest unit in flight; False if there is none."""
        return super().wait_for_device() or self._in_flight.wait_for_oldest()

    def waiting_for(self) -> list[Future[Any]]:
        """See `EnlargedRun`; also files that are being encoded."""
        return [*super().waiting_for(), *self._pictures.being_written()]

    def release(self) -> None:
        """Free everything once the device has finished with it. Reports nothing more."""
        self._in_flight.drop()
        self._previews.drop()
        self._pictures.drop()
        self._drop()
        super().release()

    def _move_on(self) -> None:
        if self.denoising and self.walking.done:
            self._keep_returned()
            if self.has_next_pass:
                self._enter_next_pass()
            else:
                self._enter(Stage.DECODING)
        elif self.stage is Stage.DECODING and self._pictures.next_to_decode is None:
            self._pictures_decoded()

    def _keep_returned(self) -> None:
        """Keep the latents to hand out: those of the first pass."""
        refined = self.has_next_pass and self.passes[self.pass_index + 1].kind is PassKind.REFINER
        if self.given.resolved.return_latents and self._returned is None and not refined:
            # Behind the fence of the pictures that are decoded next; a wait for the device would stop the other jobs.
            self._returned = to_host(self.walking.handed)

    def _tell_other_attention(self) -> None:
        """Report each part of a model once whose attention the kernel of its load does not take."""
        for loaded, family in self._there:
            for part in sorted({*parts_in_math(family)} - self._told_in_math):
                self._told_in_math.add(part)
                kernel = loaded.execution.ways.attention_kernel
                detail = f"{kernel} does not take the attention of {part} of model {loaded.model.id}; math computes it"
                reason = str(ErrorReason.NOT_SUPPORTED_ON_DEVICE)
                self._degrade(Degraded(kind="attention_kernel", reason=reason, detail=detail))

    def _tell_latents(self, index: int) -> None:
        """Report the latents of a picture, if they are asked for and not reported."""
        if self._returned is None:
            return
        latents = self._returned[index : index + 1]
        channels, height, width = latents.shape[1:]
        report = LatentsReady(
            index=index,
            shape=(channels, height, width),
            completed_steps=self._walked_steps,
            data=latents_file(latents),
        )
        self._tell(report)

    def _enter_next_pass(self) -> None:
        """Leave a pass; the next one begins with its latents."""
        handed = Handed(self.walking.handed, self.walking.noise_states())
        self._drop_pass()
        self.pass_index += 1
        self._handed = handed
        self._previews.enter(self.resolved)
        self._enter(Stage.CONDITIONING)

    def _preview(self, step: int, x0: Tensor | None) -> Tensor | None:
        if x0 is None or not self._previews.wanted(step):
            return None
        try:
            return to_host(self.codec.preview(x0, self._previews.size))
        except Exception:
            if self._previews.is_own(step):
                raise
            # A watcher's preview must not end the job: the job continues without previews for watchers.
            _log.warning("a preview for a watcher failed", job_id=self.id, step=step, exc_info=True)
            self._previews.show(self.resolved.previews)
            return None
