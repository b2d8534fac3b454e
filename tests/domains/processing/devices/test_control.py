"""Power limits: set again on a device that comes back, put back when the server stops."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from domains.device.device import Device
from domains.device.record import DeviceReach
from domains.device.settings import DeviceSettings
from domains.device.telemetry import ALWAYS, PowerRange
from domains.errors import Aborted, ErrorReason, InternalError, InvalidRequest
from domains.processing.devices.control import DeviceControl
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import LoadWork
from tests.domains.processing.scripted_worker import Floor, a_device


class Driver:
    def __init__(self) -> None:
        self.watts: float | None = None
        self.refuses = False
        self.restored: list[str] = []

    async def power_range(self, device: Device) -> PowerRange:
        return PowerRange(least_watts=100.0, most_watts=400.0, default_watts=400.0)

    async def set_power_limit(self, device: Device, watts: float | None) -> None:
        if self.refuses:
            raise InternalError("no", ErrorReason.DRIVER_ERROR)
        self.watts = watts

    async def restore(self, device: Device) -> None:
        self.restored.append(device.id)


class Controlled:
    def __init__(self, folder: Path) -> None:
        self.floor = floor = Floor(folder)
        self.driver = Driver()
        self.started: list[tuple[str, str | None]] = []
        """Workers that were to start, by the name and id of their device."""
        self.spawned: list[asyncio.Future[None]] = []
        self.control = DeviceControl(
            floor.devices,
            floor.board.lanes,
            cast(Any, self.driver),
            lambda name, device: self.started.append((name, device and device.id)),
            floor.board.room.tell,
            floor.board.backlog.stranded_without,
            lambda work: self.spawned.append(asyncio.ensure_future(work)),
        )

    def appear(self, *names: str) -> None:
        for name in names:
            reach = DeviceReach(controls=(*ALWAYS, "power_limit_watts"))
            self.floor.devices.described(name, a_device(name), reach, ready=True)

    async def settled(self) -> None:
        await asyncio.gather(*self.spawned)

    async def limit(self, device_id: str) -> None:
        wanted = DeviceSettings(power_limit_watts=200.0)
        await self.control.update(device_id, wanted, ["power_limit_watts"], etag="", validate_only=False, cause="")


@pytest.fixture
async def controlled(tmp_path: Path) -> Controlled:
    return Controlled(tmp_path)


async def test_limits_that_a_killed_server_left_are_restored_when_a_device_is_first_seen(
    controlled: Controlled,
) -> None:
    controlled.appear("sim-0", "sim-1")
    await controlled.settled()
    assert controlled.driver.restored == ["sim-0", "sim-1"]


async def test_a_limit_of_this_server_is_not_taken_for_one_that_another_left(controlled: Controlled) -> None:
    controlled.appear("sim-0", "sim-1")
    await controlled.limit("sim-0")
    await controlled.settled()
    assert controlled.driver.restored == ["sim-1"]


async def test_a_power_limit_outlives_a_loss_and_not_the_server(controlled: Controlled) -> None:
    driver, devices = controlled.driver, controlled.floor.devices
    controlled.appear("sim-0", "sim-1")
    await controlled.settled()
    driver.restored.clear()
    await controlled.limit("sim-0")
    assert driver.watts == 200.0
    driver.watts = None
    for device_id in ("sim-1", "sim-0"):
        devices.lost(device_id, "it was pulled out")
        devices.returned(device_id)
    await controlled.settled()
    assert driver.watts == 200.0
    await controlled.control.restore_limits()
    assert driver.restored == ["sim-0"]


async def test_a_limit_that_a_returned_device_refuses_is_not_reported(controlled: Controlled) -> None:
    devices = controlled.floor.devices
    controlled.appear("sim-0")
    await controlled.limit("sim-0")
    controlled.driver.refuses = True
    with capture_logs() as lines:
        devices.lost("sim-0", "it was pulled out")
        devices.returned("sim-0")
        await controlled.settled()
    assert devices.get("sim-0").settings.power_limit_watts is None
    assert [(line["log_level"], line["device"], line["problem"]) for line in lines] == [("warning", "sim-0", "no")]
    told = [event.message for event in controlled.floor.events() if event.kind == "device.settings_changed"]
    assert told[-1] == "its driver refused its power limit when it came back"


async def test_settings_that_changed_since_they_were_read_are_refused_and_nothing_changes(
    controlled: Controlled,
) -> None:
    controlled.appear("sim-0")
    before = controlled.floor.devices.get("sim-0")
    wanted = DeviceSettings(power_limit_watts=200.0)

    async def update(etag: str) -> None:
        mask = ["power_limit_watts"]
        await controlled.control.update("sim-0", wanted, mask, etag=etag, validate_only=False, cause="")

    with pytest.raises(Aborted) as caught:
        await update("another")
    assert caught.value.reason is ErrorReason.ETAG_MISMATCH
    assert controlled.floor.devices.get("sim-0") == before
    await update(before.etag)
    with pytest.raises(Aborted):
        await update(before.etag)
    assert controlled.floor.devices.get("sim-0").settings.power_limit_watts == 200.0


@pytest.mark.parametrize("only_try", [False, True])
@pytest.mark.parametrize("change", ["enabled", "draining"])
async def test_a_device_that_takes_no_more_work_tells_which_jobs_end_there_and_which_it_strands(
    controlled: Controlled, change: str, only_try: bool
) -> None:
    floor = controlled.floor
    floor.draining.begin()
    for name in ("sim-0", "sim-1"):
        floor.arrive(name)
        controlled.appear(name)
    stranded, _ = (
        floor.jobs.submit(LoadWork(model_id="m"), JobOptions(device_ids=ids))[0].id for ids in (("sim-0",), ())
    )
    lane = floor.board.lanes.of("sim-0")
    assert lane is not None
    lane.running["job"] = cast(Any, None)

    async def told(value: bool) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
        fields: dict[str, Any] = {change: value}
        wanted = DeviceSettings(**fields)
        found = await controlled.control.update("sim-0", wanted, [change], etag="", validate_only=only_try, cause="")
        return getattr(found.view.settings, change), found.finishing, found.stranded

    takes_work = change == "enabled"
    assert await told(not takes_work) == (not takes_work, ("job",), (stranded,))
    assert await told(takes_work) == (takes_work, (), ())
    lane.running.clear()


@pytest.mark.parametrize("only_try", [False, True])
async def test_a_worker_starts_when_its_device_is_enabled_and_at_no_other_change(
    controlled: Controlled, only_try: bool
) -> None:
    controlled.appear("sim-0")

    async def enable(enabled: bool, *, validate_only: bool = False) -> None:
        wanted = DeviceSettings(enabled=enabled)
        await controlled.control.update("sim-0", wanted, ["enabled"], etag="", validate_only=validate_only, cause="")

    await enable(True)
    await enable(False)
    assert controlled.started == []
    await enable(True, validate_only=only_try)
    assert controlled.started == ([] if only_try else [("sim-0", "sim-0")])
    assert controlled.floor.devices.get("sim-0").settings.enabled is not only_try


async def test_a_lost_device_takes_no_settings(controlled: Controlled) -> None:
    controlled.appear("sim-0")
    controlled.floor.devices.lost("sim-0", "unplugged")
    with pytest.raises(Aborted) as caught:
        await controlled.control.update(
            "sim-0",
            DeviceSettings(power_limit_watts=200.0),
            ["power_limit_watts"],
            etag="",
            validate_only=False,
            cause="",
        )
    assert caught.value.reason is ErrorReason.DEVICE_LOST


async def test_the_driver_is_asked_for_its_range_by_a_power_limit_alone(controlled: Controlled) -> None:
    """A device whose driver hangs can still be disabled."""
    controlled.appear("sim-0")
    await controlled.settled()
    off = DeviceSettings(enabled=False, power_limit_watts=500.0)

    async def hangs(device: Device) -> PowerRange:
        raise AssertionError("the driver hangs")

    with pytest.MonkeyPatch.context() as hung:
        hung.setattr(controlled.driver, "power_range", hangs)
        await controlled.control.update("sim-0", off, ["enabled"], etag="", validate_only=False, cause="")
    assert not controlled.floor.devices.get("sim-0").settings.enabled
    with pytest.raises(InvalidRequest) as refused:
        await controlled.control.update("sim-0", off, ["power_limit_watts"], etag="", validate_only=False, cause="")
    assert [each.allowed for each in refused.value.violations] == ["100..400"]
    assert controlled.driver.watts is None
