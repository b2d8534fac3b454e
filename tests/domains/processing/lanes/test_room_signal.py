"""The signal that a job may be able to start."""

import asyncio

from domains.processing.lanes.room_signal import RoomSignal


async def test_what_is_told_soon_is_told_when_all_have_heard_of_the_same_change() -> None:
    signal, told = RoomSignal(), list[str]()
    signal.listeners.append(lambda: told.append("room"))
    signal.tell_soon()
    told.append("another listener of the change")
    assert told == ["another listener of the change"]
    await asyncio.sleep(0)
    assert told == ["another listener of the change", "room"]
