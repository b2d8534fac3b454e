"""What keeps a job from starting is found before the job is stored."""

from collections.abc import Callable, Iterator
from inspect import isawaitable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from domains.device.benchmark import Suite
from domains.device.device import PrecisionSupport
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.device.settings import DeviceSettings
from domains.draining import Draining
from domains.errors import (
    AlreadyExists,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotSupported,
    PermissionDenied,
    ResourceExhausted,
    Violation,
)
from domains.events import EventLog
from domains.imaging import encode
from domains.inference.checks.request import checked
from domains.inference.components import ComponentSource, ResolvedComponent
from domains.inference.controls import Control, PictureSource
from domains.inference.generation import Generation, Sampling
from domains.inference.image_prompts import ImagePrompt
from domains.inference.init_image import InitImage
from domains.inference.references import Reference
from domains.inference.regions import Region
from domains.memory.blobs.blob import BlobTier
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.memory.pools.reservation import ReservationAsk
from domains.model.benchmark import ModelBenchmark
from domains.model.catalogue import Catalogue
from domains.model.conversion import Conversion
from domains.model.execution import Execution
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.model import ModelState
from domains.model.roots import Roots
from domains.model.validation import Validation
from domains.processing.devices.step_limit import StepLimit
from domains.processing.devices.step_times import StepTimes
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import (
    BenchmarkWork,
    GenerateWork,
    HostLoadWork,
    LoadWork,
    ModelBenchmarkWork,
    ResetWork,
    ScanWork,
    TransferWork,
    ValidateWork,
)
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.processing.lanes.board import Board
from domains.processing.lanes.queue import JobQueue
from domains.processing.sessions.sessions import Sessions
from domains.processing.sessions.store import SessionStore
from domains.processing.submit import Submissions
from domains.requests import Asked
from domains.storage import open_database
from tests.domains.device.test_devices import a_device
from tests.domains.memory.blobs import uploaded
from tests.domains.memory.scripted_pool import Bench, ScriptedPool
from tests.domains.model.known import loaded_as

GPU, OTHER, DEMO = "gpu-1a2b3c4d", "gpu-other", "emoji-sd"
PLAIN = JobOptions()


class Desk:
    """Submissions with two devices: `GPU` has a pool and computes in float16 too. Nothing starts the jobs."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(folder)
        self.devices = Devices(EventLog(self.database, folder))
        self.jobs = Jobs(JobStore(self.database, folder), keep_s=3600)
        self.catalogue = Catalogue(self.database, Roots([]), DEMO)
        self.blobs = BlobStore(self.database, folder)
        self.draining = Draining()
        self.sessions = Sessions(
            SessionStore(self.database, folder), self.jobs, 3600, lambda name: None, soon=lambda call: call()
        )
        self.board = Board(JobQueue(100), self.devices)
        self.loaded = LoadedModels()
        self.memory_bench = Bench()
        self.reader = PictureReader(self.blobs)
        self.memory_bench.pools.add(ScriptedPool(pool_id=GPU))
        self.submissions = Submissions(
            self.jobs,
            self.board.queue,
            self.catalogue,
            self.loaded,
            self.devices,
            self.blobs,
            self.memory_bench.reservations,
            self.draining,
            StepLimit(StepTimes(self.jobs, self.board.lanes), self.devices, 1e9),
            GenerationFiles(InputPictures(self.jobs, self.blobs, self.reader)),
            self.sessions,
        )
        self.describe(GPU, ("cuda:0",), "float32", "float16")
        self.describe(OTHER, ("cuda:1",), "float32")

    def describe(self, device_id: str, aliases: tuple[str, ...], *precisions: str) -> None:
        tried = tuple(PrecisionSupport(precision=one, supported=True) for one in precisions)
        device = a_device(device_id, aliases=aliases, precision_support=tried)
        self.devices.described(aliases[0], device, DeviceReach(capacity=2), ready=True)

    def generate(self, options: JobOptions = PLAIN, asked: Asked | None = None, **given: object) -> Job:
        generation = Generation(**{"prompt": "an owl", **given})  # pyright: ignore[reportArgumentType]
        return self.submissions.generate(checked(generation), options, asked or Asked())

    def load(self, device_id: str = GPU) -> LoadedModel:
        return self.loaded.put(loaded_as(self.catalogue.default(), device_id))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.database.close()


async def test_a_generation_is_stored_with_the_default_model_or_the_one_it_names(desk: Desk) -> None:
    for named in ("", DEMO):
        job = desk.generate(model_id=named)
        assert isinstance(job.work, GenerateWork)
        assert (job.work.resolved.model_id, job.detached) == (DEMO, True)
        assert desk.jobs.get(job.id).options == PLAIN


async def test_an_unknown_model_is_told_after_the_faults_of_the_request_itself(desk: Desk) -> None:
    with pytest.raises(NotFound) as missing:
        desk.generate(model_id="absent")
    assert missing.value.reason is ErrorReason.MODEL_NOT_FOUND
    with pytest.raises(InvalidRequest):
        desk.generate(model_id="absent", image_count=-1)
    with pytest.raises(NotFound) as unloaded:
        desk.generate(loaded_model_id="absent@gpu")
    assert unloaded.value.reason is ErrorReason.LOADED_MODEL_NOT_FOUND
    assert desk.jobs.unfinished() == []


async def test_components_from_elsewhere_are_read_with_their_hashes_in_the_order_of_their_names(desk: Desk) -> None:
    sources = (
        ComponentSource(component_id="vae", model_id=DEMO),
        ComponentSource(component_id="unet"),
        ComponentSource(component_id="text_encoder", omitted=True),
    )
    read = await desk.submissions.generations.read(checked(Generation(prompt="an owl", components=sources)))
    demo = desk.catalogue.get(DEMO)
    assert demo.sha256
    assert read.components == (
        ResolvedComponent(component_id="text_encoder", model_id=""),
        ResolvedComponent(component_id="vae", model_id=DEMO, model_sha256=demo.sha256),
    )


async def test_a_component_that_the_models_family_lacks_is_refused_by_its_place(desk: Desk) -> None:
    own = ComponentSource(component_id="vae")
    desk.generate(components=(own,))
    with pytest.raises(InvalidRequest, match="have no component 'wings'") as refused:
        desk.generate(components=(own, ComponentSource(component_id="wings")))
    assert [one.field for one in refused.value.violations] == ["generation.components[1].component_id"]
    assert len(desk.jobs.unfinished()) == 1


async def test_a_loaded_model_decides_model_and_device(desk: Desk) -> None:
    one = desk.load()
    for options in (PLAIN, JobOptions(device_ids=("cuda:0",)), JobOptions(device_ids=(OTHER, GPU))):
        job = desk.generate(options, loaded_model_id=one.id)
        assert job.options.device_ids == (GPU,)
    desk.generate(loaded_model_id=one.id, model_id=DEMO)


@pytest.mark.parametrize(
    ("model_id", "device_ids", "fields"),
    [
        ("another", (), ["generation.model_id"]),
        ("", ("cuda:1",), ["generation.loaded_model_id"]),
        ("another", (OTHER,), ["generation.model_id", "generation.loaded_model_id"]),
    ],
)
async def test_a_loaded_model_that_the_request_contradicts_is_refused(
    desk: Desk, model_id: str, device_ids: tuple[str, ...], fields: list[str]
) -> None:
    one = desk.load()
    with pytest.raises(InvalidRequest, match=f"on device {GPU}") as caught:
        desk.generate(JobOptions(device_ids=device_ids), loaded_model_id=one.id, model_id=model_id)
    assert [each.field for each in caught.value.violations] == fields
    assert caught.value.reason is ErrorReason.UNSUPPORTED_COMBINATION


async def test_a_model_that_must_be_loaded_is_asked_for_on_any_one_device(desk: Desk) -> None:
    given = checked(Generation(prompt="an owl"))
    with pytest.raises(FailedPrecondition, match="call LoadModel first") as caught:
        desk.submissions.generate(given, PLAIN, must_be_loaded=True)
    assert caught.value.reason is ErrorReason.MODEL_NOT_LOADED
    desk.loaded.put(msgspec.structs.replace(desk.load(OTHER), model_sha256="older"))
    with pytest.raises(FailedPrecondition):
        desk.submissions.generate(given, PLAIN, must_be_loaded=True)
    desk.load(GPU)
    assert desk.submissions.generate(given, PLAIN, must_be_loaded=True).state is JobState.QUEUED


async def test_a_request_that_is_only_checked_is_not_stored(desk: Desk) -> None:
    given = checked(Generation(prompt="an owl"))
    draft = desk.submissions.generate(given, PLAIN, validate_only=True, detached=False)
    assert (draft.state, draft.detached) == (JobState.QUEUED, False)
    assert desk.jobs.find(draft.id) is None
    with pytest.raises(NotFound):
        desk.submissions.generate(given, JobOptions(device_ids=("no-such",)), validate_only=True)


async def test_a_step_that_takes_too_long_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: StepLimit, resolved: object, options: object) -> None:
        raise InvalidRequest([])

    # The limit has tests of its own.
    monkeypatch.setattr(StepLimit, "check", refuse)
    with pytest.raises(InvalidRequest):
        desk.generate()


async def test_a_load_names_the_default_model_and_keeps_what_it_asks(desk: Desk) -> None:
    job = desk.submissions.load(LoadWork(model_id="", pin=True), PLAIN)
    assert job.work == LoadWork(model_id=DEMO, pin=True)
    assert job.options.device_ids == ()
    with pytest.raises(NotFound):
        desk.submissions.load(LoadWork(model_id="absent"), PLAIN)


@pytest.mark.parametrize(
    ("named", "asked", "devices"),
    [
        ((), "float32", ()),
        ((), "float16", (GPU,)),
        (("cuda:0",), "float16", ("cuda:0",)),
        (("cuda:0", "cuda:1"), "float16", (GPU,)),
    ],
)
async def test_a_load_is_restricted_to_the_devices_that_compute_in_its_precisions(
    desk: Desk, named: tuple[str, ...], asked: str, devices: tuple[str, ...]
) -> None:
    work = LoadWork(model_id=DEMO, execution=Execution(precision=asked, vae_precision="float32"))
    assert desk.submissions.load(work, JobOptions(device_ids=named)).options.device_ids == devices


async def test_a_precision_in_which_no_device_computes_is_refused_with_what_each_has(desk: Desk) -> None:
    work = LoadWork(model_id=DEMO, execution=Execution(precision="bfloat16"))
    told = "{} lacks precision bfloat16, and has precision {}"
    both = f"{told.format(GPU, 'float32, float16')}; {told.format(OTHER, 'float32')}"
    with pytest.raises(NotSupported, match=both) as caught:
        desk.submissions.load(work, PLAIN)
    assert caught.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE
    work = LoadWork(model_id=DEMO, execution=Execution(precision="float16"))
    with pytest.raises(NotSupported):
        desk.submissions.load(work, JobOptions(device_ids=("cuda:1",)))
    desk.describe("gpu-new", ("cuda:2",))
    assert desk.submissions.load(work, PLAIN).options.device_ids == (GPU, "gpu-new"), "it has tried none yet"


async def test_a_quantization_is_computed_by_the_devices_that_can_widen_its_numbers(desk: Desk) -> None:
    work = LoadWork(model_id=DEMO, execution=Execution(quantization="int8"))
    with pytest.raises(NotSupported, match=f"{GPU} lacks quantization int8, and has none") as caught:
        desk.submissions.load(work, PLAIN)
    assert (caught.value.reason, caught.value.facts["quantization"]) == (ErrorReason.NOT_SUPPORTED_ON_DEVICE, "int8")
    able = msgspec.structs.replace(desk.devices.get(GPU).device, quantizations=("int8",))
    desk.devices.described("cuda:0", able, DeviceReach(capacity=2), ready=True)
    assert desk.submissions.load(work, PLAIN).options.device_ids == (GPU,)
    plain = LoadWork(model_id=DEMO, execution=Execution(quantization="none"))
    assert desk.submissions.load(plain, PLAIN).options.device_ids == ()


async def test_a_scan_stays_inside_the_roots(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied):
        desk.submissions.scan(ScanWork(roots=(str(tmp_path),)), PLAIN)
    assert desk.submissions.scan(ScanWork(), PLAIN).state is JobState.QUEUED


async def test_a_validation_names_components_that_the_model_has(desk: Desk) -> None:
    given = Validation(model_id=DEMO, component_ids=("unet", "vae"))
    assert desk.submissions.validate(given, PLAIN).work == ValidateWork(asked=given)
    with pytest.raises(InvalidRequest, match="no component 'hat'; it has scheduler, text_encoder") as caught:
        desk.submissions.validate(Validation(model_id=DEMO, component_ids=("unet", "hat")), PLAIN)
    assert [each.field for each in caught.value.violations] == ["model_validation.component_ids"]
    with pytest.raises(NotFound):
        desk.submissions.validate(Validation(model_id="absent"), PLAIN)


def benchmark(desk: Desk, device_id: str, options: JobOptions = PLAIN) -> Job:
    return desk.submissions.benchmark(BenchmarkWork(device_id=device_id, suites=tuple(Suite)[:1]), options)


def measure_model(desk: Desk, options: JobOptions = PLAIN, model_id: str = "", **asked: Any) -> Job:
    return desk.submissions.benchmark_model(ModelBenchmark(model_id=model_id, **asked), options)


async def test_a_benchmark_of_a_model_names_the_default_model_and_all_its_cases(desk: Desk) -> None:
    job = measure_model(desk, batch_sizes=(1, 2))
    assert isinstance(job.work, ModelBenchmarkWork)
    assert job.work.asked.model_id == DEMO
    assert [len(case.seeds) for case in job.work.cases] == [1, 2]
    with pytest.raises(NotFound):
        measure_model(desk, model_id="absent")


async def test_loading_is_not_measured_where_the_model_is_loaded_on_every_device_that_is_named(desk: Desk) -> None:
    desk.load(GPU)
    with pytest.raises(FailedPrecondition, match=f"is loaded on {GPU}, .* unload it"):
        measure_model(desk, JobOptions(device_ids=("cuda:0",)), load_runs=1)
    for options, load_runs in (
        (JobOptions(device_ids=(GPU,)), 0),
        (JobOptions(device_ids=(GPU, OTHER)), 1),
        (PLAIN, 1),
    ):
        assert measure_model(desk, options, load_runs=load_runs).state is JobState.QUEUED


async def test_a_benchmark_whose_steps_take_too_long_is_refused_by_its_own_field(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: StepLimit, resolved: object, options: object) -> None:
        raise InvalidRequest([Violation(field="generation.width_px", message="too large")])

    monkeypatch.setattr(StepLimit, "check", refuse)
    with pytest.raises(InvalidRequest) as caught:
        measure_model(desk)
    assert [each.field for each in caught.value.violations] == ["model_benchmark.sizes"]


async def test_work_of_the_front_process_names_no_device(desk: Desk) -> None:
    options = JobOptions(device_ids=(GPU,))
    conversion = Conversion(model_id=DEMO, destination="/nowhere/new")
    with pytest.raises(InvalidRequest) as converted:
        await desk.submissions.convert(conversion, options)
    with pytest.raises(InvalidRequest) as loaded:
        desk.submissions.load(HostLoadWork(model_id=DEMO), options)
    for caught in (converted, loaded):
        assert [each.field for each in caught.value.violations] == ["options.devices"]
    assert desk.submissions.load(HostLoadWork(model_id=DEMO), PLAIN).state is JobState.QUEUED
    with pytest.raises(PermissionDenied, match="/nowhere"):
        await desk.submissions.convert(conversion, PLAIN)


async def test_a_model_in_host_memory_computes_nothing(desk: Desk) -> None:
    one = desk.load("")
    with pytest.raises(NotFound, match="host memory, where nothing computes") as caught:
        desk.generate(loaded_model_id=one.id)
    assert caught.value.reason is ErrorReason.LOADED_MODEL_NOT_FOUND


def reset(desk: Desk, device_id: str, options: JobOptions = PLAIN) -> Job:
    return desk.submissions.reset(ResetWork(device_id=device_id), options)


@pytest.mark.parametrize("submit", [benchmark, reset])
async def test_work_on_a_device_names_it_once_and_by_any_name(desk: Desk, submit: Callable[..., Job]) -> None:
    job = submit(desk, "cuda:0")
    assert isinstance(job.work, BenchmarkWork | ResetWork)
    assert job.work.device_id == GPU
    with pytest.raises(InvalidRequest, match="the work names its device"):
        submit(desk, "cuda:1", JobOptions(device_ids=(OTHER,)))
    with pytest.raises(NotFound) as absent:
        submit(desk, "cuda:9")
    assert absent.value.reason is ErrorReason.DEVICE_NOT_FOUND
    desk.devices.lost(OTHER, "unplugged")
    with pytest.raises(DeviceOpsError) as lost:
        submit(desk, "cuda:1")
    assert lost.value.reason is ErrorReason.DEVICE_LOST


async def test_a_disabled_device_is_not_measured_but_may_be_reset(desk: Desk) -> None:
    desk.devices.set_settings(GPU, DeviceSettings(enabled=False))
    with pytest.raises(FailedPrecondition) as caught:
        benchmark(desk, GPU)
    assert caught.value.reason is ErrorReason.DEVICE_DISABLED
    assert reset(desk, GPU).state is JobState.QUEUED


async def test_a_device_is_reset_once_at_a_time(desk: Desk) -> None:
    first = reset(desk, "cuda:0")
    benchmark(desk, OTHER)
    with pytest.raises(FailedPrecondition, match=first.id):
        reset(desk, GPU)
    assert reset(desk, OTHER).state is JobState.QUEUED
    desk.jobs.cancel(first.id)
    assert reset(desk, GPU).state is JobState.QUEUED


async def test_a_transfer_is_checked_and_takes_the_jobs_reservation(desk: Desk) -> None:
    blob = await uploaded(desk.blobs, b"0123")
    asked = TransferRequest(blob_id=blob.id, destination=NewBlob(tier=BlobTier.HOST))
    job = desk.submissions.transfer(asked, JobOptions(reservation_id="r-1"))
    assert job.work == TransferWork(request=msgspec.structs.replace(asked, reservation_id="r-1"))
    with pytest.raises(InvalidRequest):
        desk.submissions.transfer(msgspec.structs.replace(asked, offset_bytes=5), PLAIN)
    with pytest.raises(InvalidRequest, match="names its device"):
        desk.submissions.transfer(asked, JobOptions(device_ids=(GPU,)))


async def test_a_job_runs_where_its_reservation_is(desk: Desk) -> None:
    kept = (await desk.memory_bench.queue.create(ReservationAsk(pool_id=GPU, size_bytes=1))).reservation
    for named in ((), ("cuda:0", OTHER)):
        options = JobOptions(reservation_id=kept.id, device_ids=named)
        assert desk.generate(options).options.device_ids == (GPU,)
    with pytest.raises(InvalidRequest, match="not to run there") as caught:
        desk.generate(JobOptions(reservation_id=kept.id, device_ids=(OTHER,)))
    assert [each.field for each in caught.value.violations] == ["options.reservation_id"]
    with pytest.raises(DeviceOpsError) as gone:
        desk.generate(JobOptions(reservation_id="r-none"))
    assert gone.value.reason is ErrorReason.RESERVATION_NOT_FOUND


async def test_a_repeated_request_gets_its_job_whatever_has_changed(desk: Desk) -> None:
    asked = Asked(scope="jobs", request_id="mine", digest="1")
    assert desk.submissions.again(asked) is None
    job = desk.generate(PLAIN, asked)
    desk.draining.begin()
    known = desk.submissions.again(asked)
    assert known is not None
    assert known.id == job.id
    with pytest.raises(AlreadyExists):
        desk.submissions.again(msgspec.structs.replace(asked, digest="2"))


@pytest.mark.parametrize(("how", "goes_on"), [({}, True), ({"detached": True}, True), ({"detached": False}, False)])
async def test_a_detached_repetition_keeps_the_job_going_when_its_followers_leave(
    desk: Desk, how: dict[str, bool], goes_on: bool
) -> None:
    asked = Asked(scope="jobs", request_id="mine", digest="1")
    job = desk.generate(PLAIN, asked)
    desk.submissions.callers.join(job.id, detached=False)
    desk.submissions.again(asked, **how)
    assert desk.submissions.callers.leave(job.id) is not goes_on


async def test_a_draining_server_takes_no_new_work(desk: Desk) -> None:
    desk.draining.begin()
    for refused in (lambda: desk.submissions.again(Asked()), desk.generate):
        with pytest.raises(DeviceOpsError) as caught:
            refused()
        assert caught.value.reason is ErrorReason.DRAINING


async def test_a_device_that_is_not_there_or_a_full_queue_refuses_every_kind(desk: Desk) -> None:
    with pytest.raises(NotFound):
        desk.generate(JobOptions(device_ids=("no-such",)))
    desk.board.queue.capacity = 0
    with pytest.raises(ResourceExhausted, match="about 5 s") as caught:
        desk.generate()
    assert caught.value.reason is ErrorReason.QUEUE_FULL
    with pytest.raises(ResourceExhausted):
        desk.submissions.scan(ScanWork(), PLAIN)


async def test_a_model_that_cannot_be_used_is_not_loaded(desk: Desk) -> None:
    broken = msgspec.structs.replace(desk.catalogue.default(), state=ModelState.CORRUPT, problem="damaged")
    desk.catalogue._models[DEMO] = broken  # pyright: ignore[reportPrivateUsage]  # as a scan would find it
    with pytest.raises(DeviceOpsError) as caught:
        desk.submissions.load(LoadWork(model_id=DEMO), PLAIN)
    assert caught.value.reason is ErrorReason.MODEL_CORRUPT


async def test_a_job_that_is_stored_owns_the_pictures_of_its_request_and_no_other_does(desk: Desk) -> None:
    asked = Generation(prompt="an owl", init_image=InitImage(data=encode(np.zeros((64, 64), np.uint8), "image/png")))
    submit = desk.submissions.submit_generation
    await submit(checked(asked), PLAIN, validate_only=True)
    assert (desk.jobs.ids(), desk.blobs.all()) == (set(), [])
    job = await submit(checked(asked), PLAIN, Asked(request_id="one"))
    (blob,) = desk.blobs.all()
    assert isinstance(job.work, GenerateWork)
    assert job.work.asked.init_image == InitImage(blob_id=blob.id)
    assert job.work.resolved.input_blobs == (blob.id,)
    again = await submit(checked(asked), PLAIN, Asked(request_id="one"))
    assert (again.id, desk.blobs.left_by({job.id})) == (job.id, [blob])
    desk.draining.begin()
    with pytest.raises(DeviceOpsError):
        await submit(checked(asked), PLAIN)
    assert desk.blobs.left_by({job.id}) == [blob]
    desk.blobs.release(job.id)
    assert desk.blobs.all() == []
    await desk.reader.close()


async def test_files_of_a_request_that_is_wrong_by_itself_are_not_read(desk: Desk) -> None:
    wrong = Generation(prompt="an owl", init_image=InitImage(blob_id="b-none"), sampling=Sampling(steps=-1))
    with pytest.raises(InvalidRequest):
        await desk.submissions.submit_generation(checked(wrong), PLAIN)
    with pytest.raises(NotFound):
        await desk.submissions.submit_generation(checked(msgspec.structs.replace(wrong, sampling=Sampling())), PLAIN)
    none = PictureSource(blob_id="b-none")
    pictures: list[dict[str, Any]] = [
        {"controls": (Control(model_id="m", image=none),)},
        {"image_prompts": (ImagePrompt(model_id="m", images=(none,)),)},
        {"regions": (Region(mask=none),)},
        {"references": (Reference(image=none),)},
    ]
    for more in pictures:
        with pytest.raises(InvalidRequest) as refused:
            await desk.submissions.submit_generation(checked(msgspec.structs.replace(wrong, **more)), PLAIN)
        assert "generation.sampling.steps" in [one.field for one in refused.value.violations]


KINDS = {
    "generate": checked(Generation(prompt="an owl")),
    "submit_generation": checked(Generation(prompt="an owl")),
    "load": LoadWork(model_id=DEMO),
    "submit_load": HostLoadWork(model_id=DEMO),
    "scan": ScanWork(),
    "validate": Validation(model_id=DEMO),
    "benchmark": BenchmarkWork(device_id=GPU, suites=(Suite.COMPUTE,)),
    "benchmark_model": ModelBenchmark(model_id=DEMO, sizes=((64, 64),)),
    "reset": ResetWork(device_id=GPU),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("how", "detached"), [({}, True), ({"detached": False}, False)])
async def test_a_job_goes_on_without_its_caller_unless_the_caller_says_otherwise(
    desk: Desk, kind: str, how: dict[str, bool], detached: bool
) -> None:
    job = getattr(desk.submissions, kind)(KINDS[kind], PLAIN, **how)
    assert (await job if isawaitable(job) else job).detached is detached


async def test_files_of_models_that_lend_components_are_hashed_before_a_load_is_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[tuple[str, int]] = []
    stored = desk.submissions.load

    def note(model_id: str) -> None:
        hashed.append((model_id, 0))

    def load(*args: Any, **named: Any) -> Any:
        hashed.append(("stored", 1))
        return stored(*args, **named)

    monkeypatch.setattr(desk.catalogue, "hash_sources", note)
    monkeypatch.setattr(desk.submissions, "load", load)
    await desk.submissions.submit_load(LoadWork(model_id=DEMO), PLAIN)
    assert hashed == [(DEMO, 0), ("stored", 1)]


async def test_a_transfer_goes_on_without_its_caller_unless_the_caller_says_otherwise(desk: Desk) -> None:
    blob = await uploaded(desk.blobs, b"0123")
    given = TransferRequest(blob_id=blob.id, destination=NewBlob(tier=BlobTier.HOST))
    assert desk.submissions.transfer(given, PLAIN).detached is True
    assert desk.submissions.transfer(given, PLAIN, detached=False).detached is False
