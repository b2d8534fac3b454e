"""What the log tells of jobs and reservations when a device is lost, and what it names as the cause."""

from pathlib import Path

import pytest

from domains.errors import ErrorReason
from domains.memory.blobs.store import BlobStore
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import ReservationAsk
from domains.memory.pools.reservations import Reservations
from domains.model.catalogue import Catalogue
from domains.model.roots import Roots
from domains.processing.jobs.event import Interrupted, Started
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import LoadWork
from domains.processing.sessions.sessions import Sessions
from domains.processing.sessions.store import SessionStore
from server.processing.announce import Announcer
from tests.domains.memory.scripted_pool import ScriptedPool, ScriptedReclaimer
from tests.domains.processing.scripted_worker import Floor


class Told:
    def __init__(self, folder: Path) -> None:
        self.floor = floor = Floor(folder)
        source, self.pools = ScriptedPool(), Pools()
        self.pools.add(source)
        self.reservations = Reservations(self.pools)
        reclaiming = Reclaiming(self.pools, ScriptedReclaimer(source))
        blobs = BlobStore(floor.database, folder / "blobs")
        catalogue = Catalogue(floor.database, Roots(()), "emoji-sd")
        self.sessions = Sessions(SessionStore(floor.database, folder), floor.jobs, 3600, lambda name: None)
        pools = (self.pools, self.reservations, reclaiming)
        parts = (floor.devices, floor.jobs, floor.loaded, *pools, blobs, catalogue, self.sessions)
        self.announcer = Announcer(floor.log, *parts)
        floor.draining.begin()
        for name in ("sim-0", "sim-1"):
            floor.arrive(name)

    def interrupted_job(self) -> str:
        jobs = self.floor.jobs
        job_id = jobs.submit(LoadWork(model_id="m"), JobOptions())[0].id
        jobs.record(job_id, Started(device_id="sim-0", attempt=1))
        self.lost = self.floor.devices.lost("sim-0", "pulled out")
        jobs.record(job_id, Interrupted(reason=ErrorReason.DEVICE_LOST, message="gone"))
        return job_id

    def last_cause(self) -> int:
        return self.floor.events()[-1].cause_sequence


@pytest.fixture
async def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


async def test_a_job_that_moves_names_the_loss_that_made_it_move(told: Told) -> None:
    job_id = told.interrupted_job()
    assert told.last_cause() == told.lost
    told.floor.jobs.record(job_id, Started(device_id="sim-1", attempt=2))
    assert told.last_cause() == told.lost


async def test_a_job_that_goes_on_where_it_was_names_the_return(told: Told) -> None:
    job_id, devices = told.interrupted_job(), told.floor.devices
    devices.returned("sim-0")
    told.floor.arrive("sim-0")
    back = devices.events.present_state("sim-0")
    assert back > told.lost
    told.floor.jobs.record(job_id, Started(device_id="sim-0", attempt=2))
    assert told.last_cause() == back


async def test_a_reservation_that_ends_with_its_device_is_told_with_the_loss(told: Told) -> None:
    reservation = told.reservations.hold(ReservationAsk(pool_id="sim-0", size_bytes=1))
    lost = told.floor.devices.lost("sim-0", "pulled out")
    told.reservations.lose("sim-0")
    event = told.floor.events()[-1]
    assert (event.kind, event.resource_id, event.cause_sequence) == ("reservation.lost", reservation.id, lost)
    assert event.failure is not None
    assert event.failure.reason is ErrorReason.DEVICE_LOST
