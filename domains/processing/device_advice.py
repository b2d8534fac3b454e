"""Advice about a device, from what is known of it here."""

from domains.device.advice import AdviceFigures, DeviceAdvice, advise
from domains.device.benchmark import BenchmarkReport
from domains.device.devices import Devices
from domains.device.settings import DeviceGoal
from domains.model.catalogue import Catalogue


class DeviceAdvisor:
    """Collects the figures for `domains.device.advice`."""

    def __init__(self, devices: Devices, catalogue: Catalogue, tasks: tuple[str, ...]) -> None:
        self._devices = devices
        self._catalogue = catalogue
        self._tasks = tasks

    def advise(self, name: str, goal: DeviceGoal, task: str, model_id: str) -> DeviceAdvice:
        """Settings that would serve a goal. DEVICE_NOT_FOUND, MODEL_NOT_FOUND, INVALID_FIELD."""
        view = self._devices.get(name)
        report: BenchmarkReport | None = view.benchmark
        figures = AdviceFigures(
            tasks=self._tasks,
            controls=view.reach.controls,
            max_concurrent_jobs=view.reach.capacity,
            benchmark=report.results if report else (),
        )
        size = self._catalogue.get(model_id).size_bytes if model_id else None
        return advise(view.device, figures, goal, task, size, view.settings)
