"""The date: whatever the wall clock does, nothing is deleted before its time, and no duration is wrong."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains import storage
from domains.clock import AGREE_S, Clocks, ClockStep, ClockWatch, ExpiryClock
from domains.clock_store import ClockStore
from domains.errors import ErrorReason, ResourceExhausted
from domains.events import EventDomain, EventLog
from domains.memory.blobs.store import BlobStore
from domains.model.scan import ScanReport
from domains.processing.jobs.event import ScanResult, Started, Succeeded
from domains.processing.jobs.expiry import Expiry
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.store import JobStore
from domains.system_event import EventBounds

DAY_S = 86_400.0
KEEP_S = 7 * DAY_S
NOW_S = time.time()
"""A right date; events are stamped with the real one."""


class Machine:
    """A machine with clocks that a test sets, and a server that lives on it more than once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_s, self.steady_s, self.boot = NOW_S, 1000.0, "boot-1"

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds

    def reboot(self, wall_s: float) -> None:
        self.wall_s, self.steady_s, self.boot = wall_s, 10.0, self.boot + "+"

    def instant(self) -> Instant:
        return Instant(self.wall_s, self.steady_s)


class Life:
    """One process of the server."""

    def __init__(self, machine: Machine, *, trusted: bool = False) -> None:
        self._machine = machine
        self.database = storage.open_database(machine.folder)
        self.expiry = expiry = ExpiryClock(lambda: machine.wall_s)
        bounds = EventBounds(age_s=KEEP_S)
        self.events = EventLog(self.database, machine.folder, bounds=bounds, expiry_now=expiry)
        clocks = Clocks(lambda: machine.wall_s, lambda: machine.steady_s, machine.boot)
        store = ClockStore(self.database, machine.folder)
        self.watch = ClockWatch(self.events, expiry, store, clocks, trusted=trusted)
        self.jobs = Jobs(
            JobStore(self.database, machine.folder),
            KEEP_S,
            expiry=expiry,
            date_doubtful=self.watch.is_date_doubtful,
            now=machine.instant,
        )
        self.blobs = BlobStore(self.database, machine.folder / "blobs", expiry=expiry)
        self.watch.begin()
        self.jobs.recover()

    def ended_job(self) -> str:
        job_id = self.queued_job()
        job = self.jobs.record(job_id, Started(device_id="", attempt=1))
        receipt = receipt_of(job, self.jobs.live(job_id).at(self._machine.instant()))
        self.jobs.record(job_id, Succeeded(result=ScanResult(report=ScanReport()), receipt=receipt))
        return job_id

    def queued_job(self) -> str:
        return self.jobs.submit(ScanWork(), JobOptions())[0].id

    async def ids(self) -> set[str]:
        """The jobs that are left when all that has expired is deleted."""
        await Expiry(self.jobs, self.blobs).expire()
        return self.jobs.ids()

    def told(self) -> list[str]:
        return [entry.value.kind for entry in self.events.journal.after(0)]

    def agree(self) -> None:
        """Both clocks agree for an hour, as the watch sees it."""
        for _ in range(int(AGREE_S / 60) + 1):
            self._machine.pass_time(60)
            self.watch.look()

    def end(self) -> None:
        self.events.close()
        self.database.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def life(machine: Machine) -> Iterator[Life]:
    life = Life(machine)
    yield life
    life.end()


@pytest.mark.parametrize("step_s", [8 * DAY_S, -8 * DAY_S, 61.0, -61.0])
async def test_a_step_deletes_nothing_and_moves_no_age(life: Life, machine: Machine, step_s: float) -> None:
    job_id = life.ended_job()
    machine.wall_s += step_s
    assert await life.ids() == {job_id}
    assert life.told() == ["system.clock_stepped"]
    assert life.watch.problem
    life.agree()
    assert life.told() == ["system.clock_stepped", "system.clock_confirmed"]
    assert not life.watch.problem
    # Its age is what has really passed.
    assert await life.ids() == {job_id}
    machine.pass_time(KEEP_S - AGREE_S - 600)
    assert await life.ids() == {job_id}
    machine.pass_time(700)
    assert await life.ids() == set()


async def test_nothing_expires_before_the_step_is_confirmed(life: Life, machine: Machine) -> None:
    job_id = life.ended_job()
    machine.pass_time(KEEP_S - 60)
    machine.wall_s += 8 * DAY_S
    life.watch.look()
    machine.pass_time(120)
    assert await life.ids() == {job_id}
    life.agree()
    assert await life.ids() == set()


async def test_each_step_begins_the_hour_again(life: Life, machine: Machine) -> None:
    machine.wall_s += 8 * DAY_S
    life.watch.look()
    machine.pass_time(AGREE_S - 1)
    machine.wall_s -= 8 * DAY_S
    life.watch.look()
    machine.pass_time(AGREE_S - 1)
    life.watch.look()
    assert life.watch.problem
    machine.pass_time(2)
    life.watch.look()
    assert not life.watch.problem


async def test_a_machine_that_was_suspended_has_no_step_and_its_jobs_age(life: Life, machine: Machine) -> None:
    life.ended_job()
    # The steady clock counts the time of the suspension, as CLOCK_BOOTTIME does.
    machine.pass_time(8 * DAY_S)
    assert await life.ids() == set()
    assert life.told() == []


async def test_a_drift_is_no_step(life: Life, machine: Machine) -> None:
    for _ in range(100):
        machine.pass_time(60)
        machine.wall_s += 30
        life.watch.look()
    assert life.told() == []


async def test_a_start_in_1970_deletes_nothing_when_the_date_comes(machine: Machine) -> None:
    first = Life(machine)
    old = first.ended_job()
    first.end()
    machine.reboot(100.0)
    life = Life(machine)
    assert life.told()[-1] == "system.clock_stepped"
    young = life.ended_job()
    assert await life.ids() == {old, young}
    machine.pass_time(60)
    machine.wall_s = NOW_S + DAY_S
    assert await life.ids() == {old, young}
    life.agree()
    assert await life.ids() == {old, young}
    # From here on each goes at its own time.
    machine.pass_time(KEEP_S - DAY_S)
    assert await life.ids() == {young}
    machine.pass_time(DAY_S)
    assert await life.ids() == set()
    life.end()


async def test_a_boot_with_a_date_days_ahead_deletes_nothing_until_it_is_confirmed(machine: Machine) -> None:
    first = Life(machine)
    job_id = first.ended_job()
    first.end()
    machine.reboot(NOW_S + 8 * DAY_S)
    life = Life(machine)
    assert life.told()[-1] == "system.clock_stepped"
    assert await life.ids() == {job_id}
    # NTP corrects it.
    machine.wall_s = NOW_S + 120
    assert await life.ids() == {job_id}
    life.agree()
    assert await life.ids() == {job_id}
    life.end()


async def test_a_step_between_two_processes_of_one_boot_is_known_exactly(machine: Machine) -> None:
    first = Life(machine)
    job_id, waiting = first.ended_job(), first.queued_job()
    first.end()
    machine.pass_time(30)
    machine.wall_s += 8 * DAY_S
    life = Life(machine)
    assert life.jobs.age_s(life.jobs.get(waiting)) == pytest.approx(30)
    life.agree()
    assert job_id in await life.ids()
    life.end()


async def test_a_hold_outlives_its_process(machine: Machine) -> None:
    first = Life(machine)
    job_id = first.ended_job()
    first.end()
    machine.reboot(NOW_S + 8 * DAY_S)
    Life(machine).end()
    machine.pass_time(5)
    life = Life(machine)
    assert life.watch.problem
    assert await life.ids() == {job_id}
    life.end()


async def test_an_operator_confirms_the_date_at_a_start(machine: Machine) -> None:
    first = Life(machine)
    first.ended_job()
    first.end()
    machine.reboot(NOW_S + 8 * DAY_S)
    life = Life(machine, trusted=True)
    assert not life.watch.problem
    assert await life.ids() == set()
    life.end()


async def test_a_server_that_was_off_for_long_needs_no_confirmation_on_the_same_boot(machine: Machine) -> None:
    first = Life(machine)
    first.ended_job()
    first.end()
    machine.pass_time(8 * DAY_S)
    life = Life(machine)
    assert not life.watch.problem
    assert await life.ids() == set()
    life.end()


@pytest.mark.parametrize("step_s", [8 * DAY_S, -8 * DAY_S])
async def test_no_duration_counts_a_step(life: Life, machine: Machine, step_s: float) -> None:
    job_id = life.queued_job()
    machine.pass_time(5)
    machine.wall_s += step_s
    assert life.jobs.age_s(life.jobs.get(job_id)) == pytest.approx(5)
    life.jobs.record(job_id, Started(device_id="", attempt=1))
    machine.pass_time(7)
    machine.wall_s += step_s
    job = life.jobs.get(job_id)
    receipt = receipt_of(job, life.jobs.live(job_id).at(machine.instant()))
    assert (receipt.queue_s, receipt.run_s) == (pytest.approx(5), pytest.approx(7))


async def test_events_are_not_deleted_by_a_step(life: Life, machine: Machine) -> None:
    life.events.tell(EventDomain.DEVICE, "device.lost")
    machine.wall_s += 8 * DAY_S
    life.watch.look()
    life.events.flush(slack=0)
    assert life.told() == ["device.lost", "system.clock_stepped"]
    life.agree()
    life.events.flush(slack=0)
    assert life.told() == ["device.lost", "system.clock_stepped", "system.clock_confirmed"]
    # Its age counts what has really passed.
    machine.pass_time(KEEP_S - 60)
    life.events.flush(slack=0)
    assert "device.lost" not in life.told()


async def test_an_operator_confirms_the_date_while_the_server_runs(life: Life, machine: Machine) -> None:
    job_id = life.ended_job()
    machine.pass_time(KEEP_S - 60)
    machine.wall_s += 8 * DAY_S
    life.watch.look()
    machine.pass_time(120)
    assert life.watch.agreement_left_s == pytest.approx(AGREE_S, abs=1)
    assert await life.ids() == {job_id}
    life.watch.confirm("checked by hand")
    assert life.watch.agreement_left_s is None
    assert await life.ids() == set()
    assert "checked by hand" in list(life.events.journal.after(0))[-1].value.message
    life.watch.confirm()
    assert life.told() == ["system.clock_stepped", "system.clock_confirmed"]


async def test_a_date_is_not_confirmed_while_expiry_times_cannot_be_moved(life: Life, machine: Machine) -> None:
    full = [True]

    def move(step: ClockStep) -> None:
        if full[0]:
            raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    life.expiry.on_step.append(move)
    machine.wall_s += 8 * DAY_S
    life.watch.look()
    with pytest.raises(ResourceExhausted):
        life.watch.confirm()
    assert life.watch.problem
    full[0] = False
    life.watch.confirm()
    assert not life.watch.problem
