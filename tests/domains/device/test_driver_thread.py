"""A thread that asks a driver: it ends when it is told to, blocks no exit, and passes on what the driver says."""

import asyncio
import threading

import msgspec
import pytest

from domains.device.device import Backend, Device
from domains.device.driver_thread import DriverThread
from domains.device.telemetry import NoTelemetry
from domains.device.threaded_inventory import ThreadedInventory
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import ErrorReason, InternalError
from tests.domains.device.fake_nvml import cpu_device


def thread_of(name: str) -> threading.Thread:
    """The thread that asks the driver of this name."""
    (found,) = (thread for thread in threading.enumerate() if thread.name == f"driver-{name}")
    return found


async def test_calls_are_answered_in_order_until_the_thread_is_stopped() -> None:
    driver = DriverThread("in-order")
    thread = thread_of("in-order")
    assert thread.daemon, "a hanging call must not block the exit of the process"
    asked: list[int] = []
    answers = [
        asyncio.create_task(driver.ask(lambda number=number: asked.append(number) or number)) for number in range(3)
    ]
    assert (await asyncio.gather(*answers), asked) == ([0, 1, 2], [0, 1, 2])
    last = driver.begin(lambda: "last")
    driver.stop()
    thread.join(10)
    assert (thread.is_alive(), last.result(0)) == (False, "last")


async def test_what_a_call_raises_reaches_its_caller_and_no_other() -> None:
    driver = DriverThread("raising")
    with pytest.raises(ZeroDivisionError):
        await driver.ask(lambda: 1 // 0)
    assert await driver.ask(lambda: 1) == 1
    assert not driver.hangs
    driver.stop()


async def test_while_a_call_is_overdue_others_are_refused_and_afterwards_answered() -> None:
    driver, go = DriverThread("overdue", limit_s=0.01), threading.Event()
    with pytest.raises(InternalError, match=r"overdue has not answered for 0\.01 s") as caught:
        await driver.ask(lambda: go.wait(10))
    assert (caught.value.reason, driver.hangs) == (ErrorReason.DRIVER_ERROR, True)
    with pytest.raises(InternalError):
        await driver.ask(lambda: 1)
    go.set()
    driver.begin(lambda: None).result(10)
    assert not driver.hangs
    assert await driver.ask(lambda: 1) == 1
    driver.stop()


async def test_a_call_that_was_withdrawn_in_time_is_not_made() -> None:
    driver, go, made = DriverThread("withdrawn"), threading.Event(), list[str]()
    first = driver.begin(lambda: go.wait(10))
    second = driver.begin(lambda: made.append("second"))
    assert second.cancel()
    go.set()
    assert first.result(10)
    assert driver.begin(lambda: made).result(10) == []
    driver.stop()


class Inventory(ThreadedInventory):
    """One device, or what its driver does instead."""

    backend = Backend.CPU

    def __init__(self, go: threading.Event, names: list[str] | None = None) -> None:
        super().__init__("inventory", names)
        self.go = go
        self.asked = 0

    def _list(self) -> dict[str, Device]:
        self.asked += 1
        self.go.wait(10)
        return {"cpu": cpu_device()}


async def test_an_inventory_asks_once_for_all_who_wait_and_ends_its_thread_when_it_is_closed() -> None:
    go = threading.Event()
    inventory, nothing = Inventory(go), Inventory(go, [])
    with pytest.raises(InternalError, match=r"inventory did not list its devices within 0\.001 s"):
        inventory.look_now(0.001)
    looks = [asyncio.create_task(inventory.look()) for _ in range(3)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*looks) == [{"cpu": cpu_device()}] * 3
    assert inventory.asked == 1
    assert (inventory.look_now(), inventory.asked) == ({"cpu": cpu_device()}, 2)
    assert nothing.look_now() == {}
    threads = [thread for thread in threading.enumerate() if thread.name == "driver-inventory"]
    inventory.close()
    nothing.close()
    for thread in threads:
        thread.join(10)
    assert [thread.is_alive() for thread in threads] == [False, False]


async def test_a_telemetry_has_one_thread_for_each_device_and_ends_all_when_it_is_closed() -> None:
    telemetry = ThreadedTelemetry(NoTelemetry())
    device = msgspec.structs.replace(cpu_device(), id="of-a-telemetry")
    for _ in range(2):
        await telemetry.sample(device)
    thread = thread_of(device.id)
    telemetry.close()
    thread.join(10)
    assert not thread.is_alive()
    await telemetry.sample(device)
    assert thread_of(device.id) is not thread
    telemetry.close()
