"""A generation with detail passes: after its pictures are decoded, detectors look at them, and each find is made anew.

A find is a generation of its own (`pass_plan.redraw`), over the picture that the run has made so far: the run takes it up
with the models that it has. For watchers all its stages are `detailing`.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from msgspec.structs import replace
from torch import Tensor

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.imaging.masks import Pixels
from domains.inference import limits
from domains.inference.checks.details import path_of
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.checkpoint import packed_details, unpack_details
from domains.inference.on_device.details import Details, details_from, levels_of
from domains.inference.on_device.detecting import DetectorsOfJob, Views, finds_of, looked, views_of
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.fence import to_host
from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.prepared_run import Canvas
from domains.inference.on_device.resources import Resources
from domains.inference.on_device.run import Run
from domains.inference.on_device.scene import Scene
from domains.inference.outcome import CheckpointReady, Report
from domains.inference.pass_plan import Pass, PassKind, redraw
from domains.progress import Degraded, Progressed, Stage, Unit

_AS_THEY_ARE = (Stage.QUEUED, Stage.LOADING, Stage.COMPILING, Stage.DETECTING, Stage.ENCODING)
"""Stages that watchers see as they are while finds are looked for and made anew."""


class DetailedRun(Run):
    """See the module."""

    def __init__(self, job_id: str, given: Given, resources: Resources, tell: Callable[[Report], None]) -> None:
        super().__init__(job_id, given, resources, tell)
        self._whole = given
        """The generation itself; `given` is the present find's, while one is made anew."""
        self._before = sum(one.resolved.computed_steps for one in self.passes)
        """Denoising steps of the passes over whole pictures."""
        self._detectors = DetectorsOfJob(job_id, given, resources.networks)
        self._decoded_pictures: dict[int, Future[Pixels]] = {}
        self._details: Details | None = None
        """None: the pictures are not decoded yet."""
        self._views: Future[Views] | None = None
        """What the detector will see of the next picture. None: nothing is on its way."""
        self._redrawing = False
        """Whether the first of the finds is being made anew."""
        self._made: Pixels | None = None
        """The decoded find. None: it is not decoded."""
        self._kept_is_read = False
        """Whether the checkpoint was looked at."""
        self._shown = Stage.QUEUED
        """The stage as watchers see it."""

    @property
    def told_stage(self) -> Stage:
        """See `LoadRun`."""
        return self.stage if self._details is None else self._shown

    @property
    def _between(self) -> bool:
        """Whether the run looks at pictures, or begins with a find next."""
        return self._details is not None and not self._redrawing

    @property
    def ready(self) -> bool:
        """See `Run`."""
        if self.stage is Stage.ENCODING or (self._details is None and not self._detectors.network.ready):
            return False
        if self._details is None or self.stage in (Stage.QUEUED, Stage.LOADING):
            return super().ready
        if self._redrawing:
            return not self._in_flight and self._made is None if self.stage is Stage.DECODING else super().ready
        awaited = self._views is not None and not self._views.done()
        return (
            not self._in_flight and not awaited and not any(self._details.awaited()) and self._detectors.network.ready
        )

    def wait_for_device(self) -> bool:
        """See `Run`; waits for a detector, too."""
        return super().wait_for_device() or self._detectors.network.wait()

    def waiting_for(self) -> list[Future[Any]]:
        """See `Run`; also pictures that are being put together, and what a detector will see."""
        pictures = self._decoded_pictures.values() if self._details is None else self._details.awaited()
        own: list[Future[Any]] = [*pictures, *([] if self._views is None else [self._views])]
        return [*super().waiting_for(), *(one for one in own if not one.done())]

    def prepare(self, keep_on: KeepOn) -> None:
        """See `Run`. Detectors come before the first step: their faults are found then."""
        if not self._detectors.bring(self._brought(0)[0]):
            return
        if self._details is None:
            self._go_on_with_details()
        if self._details is None or self._redrawing:
            super().prepare(keep_on)
        elif self._details.unseen:
            self._look(self._details, keep_on)
        elif self._details.finds:
            self._begin_find(self._details)
        elif self._details.pictures:
            self._details.enter_next()

    def _go_on_with_details(self) -> None:
        """Continue from a checkpoint that was written after the pictures were decoded. One that is unusable is dropped, and
        reported."""
        if self._kept_is_read or not isinstance(self._kept, KeptFile):
            return
        self._kept_is_read = True
        try:
            found = unpack_details(self._kept, self._whole.resolved, self._whole.made)
        except (DataLoss, FailedPrecondition) as error:
            self._kept = None
            self._degrade(Degraded(kind="checkpoint_dropped", reason=str(error.reason), detail=error.message))
            return
        if found is not None:
            kept, pictures, self._returned = found
            self._kept, self._details = None, details_from(kept, pictures, self._whole.made)
            self._pictures.enqueued(len(self._whole.resolved.seeds) - 1)
            self._write_finished(self._details)

    def _finish(self, index: int, pixels: Pixels, scene: Scene | None) -> None:
        """Have another thread put a decoded picture together; its file waits for the detail passes."""
        self._decoded_pictures[index] = self._resources.files.submit(_together, pixels, scene)

    def _pictures_decoded(self) -> None:
        """Begin to look at the pictures."""
        self._drop()
        self._details = Details(self._whole.resolved.detail_passes, self._decoded_pictures)
        self._decoded_pictures = {}
        self._enter(Stage.DETECTING)

    def _look(self, details: Details, keep_on: KeepOn) -> None:
        """Enqueue the detector's look at the next picture, as soon as another thread has cut out what it sees. Raises what
        `keep_on` raises."""
        if self._shown is not Stage.DETECTING:
            self._enter(Stage.DETECTING)
        index, total = details.unseen[0], details.count
        self._note(Stage.DETECTING, total - len(details.unseen), total, Unit.IMAGES)
        if self._views is None:
            self._views = self._resources.files.submit(views_of, details.pictures[index].result())
            return
        self._hardware.before_unit(self.id, Stage.DETECTING)
        net, views, wanted, began = (
            self._detectors.net(details.place),
            self._views.result(),
            details.present.wanted,
            self._hardware.mark(),
        )
        logits, raw = map(to_host, looked(net, views, self.device, keep_on))
        self._views = None
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.DETECTING, fence.device_s())
            found = finds_of(views, logits, raw, net.stride_px, wanted)
            details.saw(found)
            self._progress(Stage.DETECTING, total - len(details.unseen), total, Unit.IMAGES)
            if not found:
                self._degrade(_nothing(details.place, index, wanted.label, wanted.min_confidence))
            self._write_finished(details)

        self._in_flight.add(fence, deliver)

    def _begin_find(self, details: Details) -> None:
        """Take up the generation that makes the next find anew."""
        index, find = details.finds[0]
        pixels = details.pictures[index].result()
        resolved = redraw(self._whole.resolved, details.present, index)
        canvas = Canvas(pixels, levels_of(find, details.present.dilation_px, pixels))
        self._take_up(_of_find(self._whole, resolved), (Pass(PassKind.DETAIL, resolved),), canvas)
        self._redrawing, self._made = True, None
        self._enter(Stage.CONDITIONING)

    def decode(self, keep_on: KeepOn) -> None:
        """See `Run`; of a find the made part alone."""
        if self._details is None:
            super().decode(keep_on)
            return
        index, _ = self._details.finds[0]
        self._hardware.before_unit(self.id, Stage.DECODING)
        began, latents = self._hardware.mark(), self.walking.latents
        decoded, whole = self._decoded(latents, keep_on, self.codec)
        pixels, finite = to_host(decoded)[0], to_host(whole)
        fence = self._hardware.fence(began)

        def deliver() -> None:
            self.meter.device_was_busy(Stage.DETAILING, fence.device_s())
            self._made = (pixels if finite.item() else self._decoded_again(index, latents, self.codec)).numpy()

        self._in_flight.add(fence, deliver)

    def _move_on(self) -> None:
        if self._details is None:
            super()._move_on()
        elif self._redrawing and self.denoising and self.walking.done:
            self._enter(Stage.DECODING)
        elif self._redrawing and self._made is not None:
            self._put_back(self._details, self._made)

    def _put_back(self, details: Details, made: Pixels) -> None:
        """Have another thread put the find back into its picture."""
        scene = self.scene
        assert scene is not None, "a find is a part of its picture"
        details.made(self._resources.files.submit(scene.finished, made), self.resolved.computed_steps)
        self._leave_find()
        self._write_finished(details)

    def _leave_find(self) -> None:
        self._redrawing, self._made = False, None
        self._drop()

    def _write_finished(self, details: Details) -> None:
        """Begin to encode the pictures in which nothing is left to do. After the last one the files alone are left."""
        for index in details.finished:
            pixels = details.pictures.pop(index)
            found = details.told.get(index, ())
            self._pictures.write_later(index, pixels, found[: limits.TOLD_FINDS])
        if not details.pictures:
            self._detectors.network.leave()
            self._enter(Stage.ENCODING)

    def keep(self) -> CheckpointReady | None:
        """See `PreparedRun`. A find that is being made anew begins again."""
        if self._details is None:
            return super().keep()
        self.settle_all()
        self._in_flight.settle()
        pictures = {index: one.result() for index, one in self._details.pictures.items()}
        pictures |= self._pictures.unwritten()
        data = packed_details(self._whole.resolved, self._details.kept(), pictures, self._returned)
        return CheckpointReady(step=self._before + self._details.steps, data=data)

    def begin_again(self) -> None:
        """See `LoadRun`. The run goes on where it is; a find that is being made anew begins again."""
        if self._details is None:
            super().begin_again()
        else:
            self.settle_all()
            self._in_flight.settle()
            self._leave_find()
            LoadRun.begin_again(self)
        self._views = None
        self._detectors.network.leave()

    def _enter(self, stage: Stage) -> None:
        shown = stage if self._details is None or stage in _AS_THEY_ARE else Stage.DETAILING
        if self._details is None or shown is not self._shown:
            self._shown = shown
            super()._enter(shown)
        self.stage = stage

    def _note(self, stage: Stage, completed: int, total: int, unit: Unit) -> Progressed:
        details = self._details
        if details is None or stage in _AS_THEY_ARE:
            return super()._note(stage, completed, total, unit)
        each = redraw(self._whole.resolved, details.present, 0).computed_steps
        done = completed if stage is Stage.DETAILING else 0
        whole = details.steps + each * len(details.finds)
        return super()._note(Stage.DETAILING, details.steps + done, whole, Unit.STEPS)

    def _preview(self, step: int, x0: Tensor | None) -> Tensor | None:
        """None while finds are made anew: their parts are not the picture."""
        return super()._preview(step, x0) if self._details is None else None

    def release(self) -> None:
        """See `Run`."""
        super().release()
        self._details, self._views, self._decoded_pictures = None, None, {}
        self._detectors.network.leave()


def _together(pixels: Pixels, scene: Scene | None) -> Pixels:
    return pixels if scene is None else scene.finished(pixels)


def _of_find(whole: Given, resolved: ResolvedGeneration) -> Given:
    """What the generation of a find is given."""
    return replace(
        whole,
        resolved=resolved,
        made=0,
        **dict.fromkeys(("kept", "picture", "mask", "upscaler", "latents")),
        **dict.fromkeys(("later", "detectors", "region_loras", "controls", "regions", "references"), ()),
    )


def _nothing(place: int, index: int, label: str, least: float) -> Degraded:
    detail = (
        f"no {label} was found in picture {index} with a confidence of {least:g} or more; it stays as it was before this"
        " pass; lower `min_confidence_ratio`, or leave the pass out"
    )
    return Degraded(kind="nothing_detected", reason=str(ErrorReason.INVALID_FIELD), detail=detail, field=path_of(place))
