"""What the kinds of work order of a worker, what they make of its report, and which models they read."""

from types import SimpleNamespace
from typing import Any, cast, get_args

import msgspec
import pytest

from domains.device.benchmark import Suite
from domains.errors import InternalError
from domains.inference.generation import Generation
from domains.memory.blobs.blob import BlobTier
from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.model.benchmark import ModelBenchmark
from domains.model.conversion import Conversion
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded import LoadedModel, Stay
from domains.model.validation import Validation
from domains.processing.jobs.event import LoadResult, ModelBenchmarkResult
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import (
    FRONT_KINDS,
    BenchmarkWork,
    ConvertWork,
    GenerateWork,
    HostLoadWork,
    LoadWork,
    ModelBenchmarkWork,
    ResetWork,
    ScanWork,
    TransferWork,
    ValidateWork,
    Work,
)
from domains.processing.jobs.kinds.assets import Asset, AssetRole
from domains.processing.jobs.kinds.entry import PlainWork, Reported
from domains.processing.jobs.kinds.entry import Supplies as OrderSupplies
from domains.processing.workers.worker import BenchmarkOrder, LoadOrder
from domains.progress import Receipt
from domains.reasons import Domain
from tests.domains.inference.on_device.requests import embedded_model, request

LOADED = LoadedModel(id="m@sim-0", model_id="m", device_id="sim-0", components=(), load_time_s=1.0, last_use_time_s=1.0)
BENCHMARK = BenchmarkWork(device_id="sim-0", suites=tuple(Suite)[:2], max_duration_s=7.0)


class Supplies:
    narrower: Execution | None = None

    def model(self, model_id: str) -> str:
        return f"files of {model_id}"


def test_a_load_orders_its_model_in_its_precision_and_tells_where_it_is() -> None:
    work = LoadWork(model_id="m", execution=Execution(precision="float16"))
    order = work.order("o-1", cast(Any, Supplies()))
    assert isinstance(order, LoadOrder)
    assert (order.order_id, cast(Any, order.model), order.execution) == ("o-1", "files of m", work.execution)
    supplies = Supplies()
    supplies.narrower = Execution(precision="float16", offload="component")
    assert cast(Any, work.order("o-1", cast(Any, supplies))).execution == supplies.narrower
    assert work.result(Reported(loaded=LOADED, reused=True)) == LoadResult(loaded=LOADED, reused=True)
    with pytest.raises(InternalError, match="without telling what it loaded"):
        work.result(Reported())


def test_a_load_asks_for_a_stay_only_where_its_request_does() -> None:
    assert LoadWork(model_id="m").stay == Stay()
    assert LoadWork(model_id="m", pin=True, keep_alive_s=5.0).stay == Stay(pinned=True, keep_alive_s=5.0)


def test_a_benchmark_names_its_device_and_needs_its_report() -> None:
    assert BENCHMARK.device_ids == ("sim-0",)
    order = BENCHMARK.order("o-1", cast(Any, Supplies()))
    assert isinstance(order, BenchmarkOrder)
    assert order.order_id == "o-1"
    with pytest.raises(InternalError, match="ended a benchmark without its report"):
        BENCHMARK.result(Reported())


def test_a_benchmark_of_a_model_reads_it_and_its_report_is_the_result() -> None:
    work = ModelBenchmarkWork(asked=ModelBenchmark(model_id="m", runs=3), cases=(cast(Any, "case"),))
    assert work.assets == (Asset(role=AssetRole.BASE, model_id="m"),)
    assert work.summary == "benchmark m: 1 cases"
    order = work.order("o-1", cast(Any, Supplies()))
    assert (order.order_id, cast(Any, order.model)) == ("o-1", "files of m")
    assert (order.asked, order.cases) == (work.asked, work.cases)
    report = cast(Any, "report")
    assert work.result(Reported(model_benchmark=report)) == ModelBenchmarkResult(report=report)
    with pytest.raises(InternalError, match="without its report"):
        work.result(Reported())


@pytest.mark.parametrize("narrower", [None, Execution(offload="component")])
def test_a_generation_runs_as_usual_or_in_the_narrower_way_that_has_room(narrower: Execution | None) -> None:
    model = embedded_model()
    work = GenerateWork(asked=Generation(prompt="owl"), resolved=request(model))
    supplies = OrderSupplies(
        model=lambda _: model,
        adapter=lambda _: model,
        whole=lambda _: model,
        previews=lambda one: one,
        narrower=narrower,
    )
    order = work.order("o-1", supplies)
    assert (order.order_id, order.given.execution) == ("o-1", narrower or AS_USUAL)


def test_work_that_needs_no_model_has_no_assets() -> None:
    assert (BENCHMARK.assets, ScanWork().assets) == ((), ())
    assert LoadWork(model_id="m").device_ids == ()


def test_a_new_job_has_used_nothing_of_its_time() -> None:
    job = Jobs.draft(ScanWork(), JobOptions())
    assert (job.ran_s, job.waiting_paused_s, job.crashes, job.attempt) == (0.0, 0.0, 0, 0)
    assert job.spent == Receipt()


def test_a_reset_waits_for_what_runs_unless_it_is_forced() -> None:
    work = ResetWork(device_id="sim-0")
    assert (work.process, work.force, work.drain_timeout_s) == (True, False, 30.0)


def test_each_kind_has_its_domain_and_an_etag_that_follows_its_state() -> None:
    load, scan, reset = (
        Jobs.draft(work, JobOptions()) for work in (LoadWork(model_id="m"), ScanWork(), ResetWork(device_id="sim-0"))
    )
    assert [job.domain for job in (load, scan, reset)] == [Domain.MODEL, Domain.MODEL, Domain.DEVICE]
    other = Jobs.draft(LoadWork(model_id="n"), JobOptions())
    assert len(load.etag) == len(reset.etag) == 16
    assert load.etag == other.etag != Jobs.draft(LoadWork(model_id="m"), JobOptions(priority=3)).etag


@pytest.mark.parametrize("kind", get_args(Work), ids=lambda kind: kind.__name__)
def test_each_kind_that_names_a_model_says_that_it_reads_it(kind: type[PlainWork]) -> None:
    named = {field.name for field in msgspec.structs.fields(kind)}
    for field in msgspec.structs.fields(kind):
        if field.name == "asked":
            named |= {inner.name for inner in msgspec.structs.fields(field.type)}
    says = kind.model_ids is not PlainWork.model_ids or kind.assets is not PlainWork.assets
    assert says is ("model_id" in named)


FRONT: dict[str, Any] = {
    "convert": ConvertWork(asked=Conversion(model_id="m", destination="/new")),
    "load_to_host": HostLoadWork(model_id="m"),
    "reset": ResetWork(device_id="sim-0"),
    "scan": ScanWork(),
    "transfer": TransferWork(request=TransferRequest(blob_id="b", destination=NewBlob(tier=BlobTier.HOST))),
    "validate": ValidateWork(asked=Validation(model_id="m")),
}


@pytest.mark.parametrize("name", FRONT)
def test_work_of_the_front_is_carried_out_by_its_own_runner(name: str) -> None:
    def runner(of: str) -> Any:
        return lambda work, task: (of, work, task)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]

    runners: Any = SimpleNamespace(**{each: runner(each) for each in FRONT})
    task: Any = "task"
    assert FRONT[name].begin(runners, task) == (name, FRONT[name], task)
    assert {type(one) for one in FRONT.values()} == set(FRONT_KINDS)
