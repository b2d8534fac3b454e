"""How many jobs share a device."""

import msgspec
import pytest

from domains.device.device import Backend
from domains.device.sharing import jobs_at_once
from tests.domains.device.test_devices import a_device


@pytest.mark.parametrize(("backend", "jobs"), [(Backend.CPU, 2), (Backend.CUDA, 8), (Backend.SIMULATED, 8)])
def test_a_cpu_shares_its_time_among_few_jobs_and_other_devices_among_many(backend: Backend, jobs: int) -> None:
    assert jobs_at_once(msgspec.structs.replace(a_device(), backend=backend), None) == jobs


@pytest.mark.parametrize("backend", list(Backend))
def test_the_operators_number_counts_on_every_device(backend: Backend) -> None:
    assert jobs_at_once(msgspec.structs.replace(a_device(), backend=backend), 3) == 3
