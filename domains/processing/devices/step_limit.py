"""Refuses sizes whose steps would block a device for too long."""

from domains.amounts import time_told
from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.errors import InvalidRequest, Violation
from domains.inference.generation import ResolvedGeneration
from domains.inference.pass_plan import PassKind, passes_of, redraws_of
from domains.processing.devices.step_times import StepEstimate, StepTimes
from domains.processing.jobs.job import JobOptions
from domains.processing.lanes.placement import Placement


class StepLimit:
    """Compares the estimated step of a generation with the limit. What was not measured is not refused."""

    def __init__(self, times: StepTimes, devices: Devices, limit_s: float) -> None:
        self._times = times
        self._devices = devices
        self._limit_s = limit_s

    def check(self, resolved: ResolvedGeneration, options: JobOptions) -> None:
        """Raise INVALID_FIELD if each device that may run the generation would take too long for one step of a pass.

        A `run_timeout` that allows for the whole estimated time is the caller's consent.
        """
        for one in passes_of(resolved):
            self._check(one.resolved, options, "hires_pass" if one.kind is PassKind.HIRES else "")
        for place, one in enumerate(redraws_of(resolved)):
            self._check(one, options, f"detail_passes[{place}].edge_px")

    def _check(self, resolved: ResolvedGeneration, options: JobOptions, field: str) -> None:
        """`field`: what says the size of the pass. Empty: the generation's own size."""
        estimates = {view.device.id: self._times.estimate(view.device.id, resolved) for view in self._admitted(options)}
        known = {device_id: estimate for device_id, estimate in estimates.items() if estimate is not None}
        if not known or len(known) < len(estimates):
            return
        device_id, fastest = min(known.items(), key=lambda item: item[1].seconds)
        whole_s = fastest.seconds * resolved.computed_steps
        consent = options.run_timeout_s is not None and options.run_timeout_s >= whole_s
        if fastest.seconds > self._limit_s and not consent:
            raise self._refusal(resolved, field, device_id, fastest, whole_s)

    def _admitted(self, options: JobOptions) -> list[DeviceView]:
        """Devices that may run a job with these options."""
        placement = Placement(front=None, device_ids=frozenset(options.device_ids), allow_cpu=options.allow_cpu)
        views = [view for view in self._devices.list() if view.settings.enabled and view.state is not DeviceState.LOST]
        allowed = [view for view in views if placement.allows(view.device)]
        return [view for view in allowed if view.device.id != "cpu"] if placement.leaves_cpu(views) else allowed

    def _refusal(
        self, resolved: ResolvedGeneration, field: str, device_id: str, step: StepEstimate, whole_s: float
    ) -> InvalidRequest:
        field = field or ("width_px" if resolved.width_px >= resolved.height_px else "height_px")
        size = f"{resolved.width_px}×{resolved.height_px} px"
        estimate = f"{'at least ' if step.at_least else ''}{time_told(step.seconds)}"
        limit = f"a step of at most {time_told(self._limit_s)}"
        message = (
            f"one step of {size} takes {estimate} on {device_id} (estimated from steps that were measured there); allowed is"
            f" {limit}; ask for a smaller size or fewer pictures, choose a faster device, or set options.run_timeout to"
            f" {time_told(whole_s)} or more"
        )
        return InvalidRequest(
            [Violation(field=f"generation.{field}", message=message, allowed=limit)],
            device_id=device_id,
            estimated_step_s=round(step.seconds, 3),
            estimated_run_s=round(whole_s, 3),
            limit_s=self._limit_s,
        )
