"""The order loop without a transport: an order's fault does not affect others, and a stop finds its order."""

from collections import deque
from pathlib import Path

import msgspec
import pytest
import structlog

from domains.device.simulated.fault_counts import SimSetup
from domains.device.simulated.script import SimDevice
from domains.errors import ErrorReason
from domains.inference.outcome import ModelLoaded, ModelUnloaded, RunFailed, RunFinished, RunStopped
from domains.model.catalogue import embedded_models
from domains.model.fingerprint import Fingerprints
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.processing.on_device.channel import Begin, Closed, Command, Describe, SetUp, StopCall
from domains.processing.on_device.orders import OrderLoop
from domains.processing.workers.worker import (
    Described,
    LoadOrder,
    Measured,
    MeasureOrder,
    Report,
    UnloadOrder,
)
from domains.progress import Stage, StageStarted
from domains.stop import Stop, StopKind

STOP = Stop(kind=StopKind.CANCEL, cause="not wanted")


class Mailbox:
    """A channel in memory, as an actor has one: all commands are in it already, and the server leaves after them."""

    def __init__(self, *commands: Command) -> None:
        self.commands = deque(commands)
        self.reports: list[tuple[int, Report]] = []
        self.closed: list[int] = []

    def next(self, timeout_s: float | None) -> Command | None:
        if self.commands:
            return self.commands.popleft()
        return Closed() if timeout_s is None else None

    def send(self, call: int, report: Report) -> None:
        self.reports.append((call, report))

    def try_send(self, call: int, report: Report) -> None:
        pass

    def close(self, call: int) -> None:
        self.closed.append(call)

    def of(self, call: int) -> list[Report]:
        return [report for each, report in self.reports if each == call]


class Conversation(Mailbox):
    """A channel whose next command comes when the order before it has ended."""

    begun = 0

    def next(self, timeout_s: float | None) -> Command | None:
        if len(self.closed) < self.begun:
            return None
        self.begun += 1
        return super().next(timeout_s)


def folder_of(model: Model) -> Path:
    return Path(model.folder)


def test_a_bug_in_an_order_is_its_answer_and_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox(
        Begin(call=1, order=UnloadOrder(order_id="job-1", model_id="m")),
        Begin(call=2, order=MeasureOrder(order_id="measure-1")),
    )
    loop = OrderLoop(box, "cpu", folder_of)

    def broken(model_id: str) -> int:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(loop._steps, "unload", broken)  # pyright: ignore[reportPrivateUsage]  # a fault is put in
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        loop.run()
    (failed,) = box.of(1)
    assert isinstance(failed, RunFailed)
    assert (failed.reason, "secret" in failed.message) == (ErrorReason.INVARIANT_BROKEN, False)
    measured, finished = box.of(2)
    assert isinstance(measured, Measured)
    assert isinstance(finished, RunFinished)
    assert box.closed == [1, 2]
    assert [line["job_id"] for line in lines] == ["job-1"]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)


def test_a_stop_behind_other_commands_reaches_its_order_and_they_keep_their_turn() -> None:
    box = Mailbox(
        Begin(call=1, order=MeasureOrder(order_id="measure-1")),
        Describe(call=2),
        StopCall(call=1, stop=STOP),
        Begin(call=3, order=MeasureOrder(order_id="measure-2")),
    )
    OrderLoop(box, "cpu", folder_of).run()
    *_, stopped = box.of(1)
    assert isinstance(stopped, RunStopped)
    assert stopped.stop == STOP
    assert [type(report) for report in box.of(2)] == [Described]
    assert [type(report) for report in box.of(3)] == [Measured, RunFinished]
    assert box.closed == [1, 2, 3]


@pytest.mark.parametrize("name", ["cpu", "sim-0"])
def test_adapters_count_in_host_memory_whatever_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = SetUp(call=0, setup=SimSetup(device=SimDevice(id="sim-0"), armed=()))
    measure = Begin(call=1, order=MeasureOrder(order_id="measure-1"))
    box = Mailbox(*((setup,) if name == "sim-0" else ()), measure)
    loop = OrderLoop(box, name, folder_of)
    monkeypatch.setattr(loop._steps.resources.adapters, "held_bytes", lambda: 7)  # pyright: ignore[reportPrivateUsage]  # as if a job had some
    loop.run()
    measured = box.of(1)[0]
    assert isinstance(measured, Measured)
    held = {"cpu": measured.measure.owners, "sim-0": measured.measure.host_owners}
    found = {place: [one.live_bytes for one in owners if one.id == "adapters"] for place, owners in held.items()}
    assert found == {"cpu": [7] if name == "cpu" else [], "sim-0": [7] if name == "sim-0" else []}


def test_a_model_is_read_where_its_files_are_on_the_workers_machine(tmp_path: Path) -> None:
    (model,) = embedded_models(Fingerprints(()))
    elsewhere = msgspec.structs.replace(model, folder=str(tmp_path / "only on the server"))
    places = {model.sha256: Path(model.folder)}
    box = Mailbox(Begin(call=1, order=LoadOrder(order_id="job-1", model=elsewhere)))
    OrderLoop(box, "cpu", lambda ordered: places[ordered.sha256]).run()
    assert [type(report) for report in box.of(1)][-2:] == [ModelLoaded, RunFinished]


def replaced(model: Model, other: Model) -> Mailbox:
    """What a worker answers that loads a model, loads it again, and then as `other`."""
    orders = [LoadOrder(order_id=f"job-{number}", model=one) for number, one in enumerate((model, model, other))]
    box = Conversation(*(Begin(call=number, order=order) for number, order in enumerate(orders)))
    OrderLoop(box, "cpu", folder_of).run()
    return box


def test_orders_of_one_model_that_come_at_once_share_its_load_and_other_weights_wait_for_it() -> None:
    (model,) = embedded_models(Fingerprints(()))
    other = msgspec.structs.replace(model, sha256="other weights")
    orders = [LoadOrder(order_id=f"job-{number}", model=one) for number, one in enumerate((model, model, other))]
    box = Mailbox(*(Begin(call=number, order=order) for number, order in enumerate(orders)))
    OrderLoop(box, "cpu", folder_of).run()
    assert [type(report) for report in box.of(0)] == [StageStarted, ModelLoaded, RunFinished]
    assert loaded_in(box.of(1)).load_time_s == loaded_in(box.of(0)).load_time_s
    assert isinstance(box.of(2)[0], ModelUnloaded)
    assert loaded_in(box.of(2)).model_sha256 == "other weights"


def loaded_in(reports: list[Report]) -> LoadedModel:
    (told,) = (report.loaded for report in reports if isinstance(report, ModelLoaded))
    return told


def test_replacing_a_loaded_model_is_a_load_with_a_time_of_its_own() -> None:
    (model,) = embedded_models(Fingerprints(()))
    box = replaced(model, msgspec.structs.replace(model, sha256="other weights"))
    first, again, other = (loaded_in(box.of(call)) for call in range(3))
    assert [type(report) for report in box.of(1)] == [ModelLoaded, RunFinished]
    assert (again.load_time_s, again.model_sha256) == (first.load_time_s, model.sha256)
    assert box.of(2)[:2] == [
        ModelUnloaded(model_id=model.id, freed_bytes=first.size_bytes),
        StageStarted(stage=Stage.LOADING),
    ]
    assert other.load_time_s > first.load_time_s
    assert other.model_sha256 == "other weights"


def test_a_replacement_that_fails_tells_that_the_old_model_is_gone(tmp_path: Path) -> None:
    (model,) = embedded_models(Fingerprints(()))
    nowhere = tuple(msgspec.structs.replace(file, real=str(tmp_path / file.path)) for file in model.files)
    other = msgspec.structs.replace(model, sha256="other weights", folder=str(tmp_path), files=nowhere)
    gone, started, failed = replaced(model, other).of(2)
    assert isinstance(gone, ModelUnloaded)
    assert isinstance(started, StageStarted)
    assert isinstance(failed, RunFailed)
