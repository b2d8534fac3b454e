"""What a load and its use are forecast to cost on each device, and what was measured to say so."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
from msgspec.structs import replace

from domains.device.device import PrecisionSupport
from domains.device.record import DeviceReach
from domains.device.settings import DeviceSettings
from domains.errors import ErrorReason, NotFound
from domains.inference.controls import ResolvedControl, UsedPicture
from domains.inference.generation import Generation
from domains.inference.hires import ResolvedHires
from domains.inference.image_fit import ImageFit
from domains.inference.image_prompts import ResolvedImagePrompt
from domains.inference.prompts import Syntax
from domains.inference.resampling import Resampling
from domains.inference.resolution.resolve import resolve
from domains.memory.pools.reclaiming import Reclaiming
from domains.model import component_headers
from domains.model.catalogue import Catalogue
from domains.model.execution import AS_USUAL, Execution
from domains.model.footprints import Footprints, PartFootprint
from domains.model.loaded import LoadedComponent
from domains.model.model import Model
from domains.model.roots import Roots
from domains.model.safetensors_header import TensorEntry, read_header
from domains.model.ways import Ways
from domains.model.weight_file import open_judged
from domains.processing.devices.step_times import StepTimes
from domains.processing.jobs.event import GenerationResult, JobReceipt, Started, Succeeded
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.memory import estimates
from domains.processing.memory.estimates import MAX_BATCH, Estimate, Estimates, Shape
from domains.progress import Receipt, Stage, StageTiming
from tests.domains.memory.scripted_pool import Bench, ScriptedReclaimer
from tests.domains.model.known import loaded_as
from tests.domains.processing.scripted_worker import Floor, a_device

SQUARE = Shape(width_px=64, height_px=64)


class Forecasts(Floor):
    """A device with a pool of 100 MB, and one without a pool."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.catalogue = Catalogue(self.database, Roots([]), "emoji-sd")
        self.bench = Bench(100_000_000)
        self.reclaimer = ScriptedReclaimer(self.bench.source)
        for name in ("sim-0", "sim-1"):
            self.arrive(name)
        self.estimates = Estimates(
            Footprints(self.catalogue, self.loaded),
            self.jobs,
            self.loaded,
            self.devices,
            self.board.lanes,
            self.bench.pools,
            Reclaiming(self.bench.pools, self.reclaimer),
            StepTimes(self.jobs, self.board.lanes),
        )

    async def of(self, *names: str, shape: Shape = SQUARE, execution: Execution = AS_USUAL) -> list[Estimate]:
        return await self.estimates.of(self.catalogue.default(), execution, names, shape, allow_cpu=False)

    async def one(self, shape: Shape = SQUARE) -> Estimate:
        (found,) = await self.of("sim-0", shape=shape)
        return found

    def learn(
        self, step_s: float = 2.0, peak: int | None = 5000, edge: int = 64, *, steps: int = 10, **more: Any
    ) -> None:
        """A generation ends that took so long. `more`: fields of what was resolved."""
        asked = Generation(prompt="an owl", width_px=edge, height_px=edge)
        resolved = msgspec.structs.replace(resolve(asked, self.catalogue.default()), **more)
        options = JobOptions(device_ids=("none",))
        job_id = self.jobs.submit(GenerateWork(asked=asked, resolved=resolved), options)[0].id
        self.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
        whole = step_s * max(1, steps)
        timing = StageTiming(stage=Stage.DENOISING, wall_s=whole * 3, device_s=whole)
        work = Receipt(timings=(timing,), peak_device_bytes=peak, steps_executed=steps)
        result = GenerationResult(images=(), resolved=resolved)
        receipt = JobReceipt(work=work, queue_s=0.0, run_s=0.0, attempts=1)
        self.jobs.record(job_id, Succeeded(result=result, receipt=receipt))


@pytest.fixture
async def forecasts(tmp_path: Path) -> Any:
    forecasts = Forecasts(tmp_path)
    yield forecasts
    forecasts.database.close()


async def test_each_device_that_could_take_the_load_has_a_forecast(forecasts: Forecasts) -> None:
    assert [each.device.id for each in await forecasts.of()] == ["sim-0", "sim-1"]
    assert [each.device.id for each in await forecasts.of("sim-1")] == ["sim-1"]
    with pytest.raises(NotFound):
        await forecasts.of("absent")
    forecasts.devices.set_settings("sim-0", DeviceSettings(enabled=False))
    assert [each.device.id for each in await forecasts.of()] == ["sim-1"]


async def test_what_a_load_adds_is_free_or_freed_or_missing(forecasts: Forecasts) -> None:
    need = (await forecasts.one()).weights_bytes
    assert need == sum(part.bytes for part in (await forecasts.one()).parts) > 0
    whole = await forecasts.one()
    assert (whole.free_bytes, whole.evictable_bytes, whole.evictions) == (100_000_000, 0, ())
    assert (whole.available_bytes, whole.shortfall_bytes) == (100_000_000, 0)
    forecasts.bench.source.others = 100_000_000 - need - 10
    forecasts.reclaimer.load("old", 10, 4000)
    forecasts.reclaimer.load("older", 10, 9000)
    tight = await forecasts.one()
    assert (tight.free_bytes, tight.evictable_bytes, tight.evictions) == (need - 10, 20, (("older", 10),))
    assert (tight.available_bytes, tight.shortfall_bytes) == (need + 10, 0)
    forecasts.bench.source.others += 15
    full = await forecasts.one()
    assert (full.shortfall_bytes, {name for name, _ in full.evictions}) == (5, {"old", "older"})


async def test_bytes_that_are_claimed_are_not_free(forecasts: Forecasts) -> None:
    claim = forecasts.bench.pools.claims.keep("sim-0", 1000)
    assert (await forecasts.one()).free_bytes == 100_000_000 - 1000
    claim.close()


async def test_the_model_itself_is_not_evicted_for_its_own_load(forecasts: Forecasts) -> None:
    one = forecasts.loaded.put(loaded_as(forecasts.catalogue.default(), "sim-0"))
    forecasts.bench.source.others = 100_000_000
    forecasts.reclaimer.load(one.id, 50, 4000)
    forecasts.reclaimer.load("other", 10, 4000)
    forecasts.bench.source.others -= 60
    found = await forecasts.one()
    assert (found.evictable_bytes, found.evictions) == (10, (("other", 10),))


async def test_a_device_whose_memory_cannot_be_measured_promises_nothing(forecasts: Forecasts) -> None:
    (found,) = await forecasts.of("sim-1")
    assert (found.free_bytes, found.available_bytes, found.shortfall_bytes) == (None, None, None)
    assert (found.evictions, found.evictable_bytes, found.max_batch(SQUARE)) == ((), 0, None)
    forecasts.bench.source.total = None
    assert (await forecasts.one()).free_bytes is None


async def test_nothing_is_told_of_a_use_that_was_never_measured(forecasts: Forecasts) -> None:
    found = await forecasts.one()
    assert (found.step_s, found.activation_bytes, found.load_s, found.sample_count) == (None, None, None, 0)
    assert found.max_batch(SQUARE) is None


async def test_what_was_measured_with_tiles_is_no_forecast_for_pictures_as_a_whole(forecasts: Forecasts) -> None:
    tiled, model = Execution(ways=Ways(vae_tiling=True)), forecasts.catalogue.default()
    there = forecasts.loaded.put(msgspec.structs.replace(loaded_as(model, "sim-0"), ways=tiled.ways))
    weights = there.size_bytes
    forecasts.learn(peak=weights + 3000)
    (found,) = await forecasts.of("sim-0", execution=tiled)
    assert found.activation_bytes == 3000
    as_it_is = await forecasts.one()
    assert (as_it_is.activation_bytes, as_it_is.execution.ways) == (3000, tiled.ways)
    (whole,) = await forecasts.of("sim-0", execution=Execution(ways=Ways(vae_tiling=False)))
    assert whole.activation_bytes is None
    forecasts.loaded.remove(there.id)
    assert (await forecasts.one()).activation_bytes is None
    forecasts.learn(peak=7000)
    assert (await forecasts.one()).activation_bytes == 7000
    (found,) = await forecasts.of("sim-0", execution=tiled)
    assert found.activation_bytes == 3000


async def test_a_measured_run_tells_its_size_and_larger_ones_in_proportion(forecasts: Forecasts) -> None:
    for step_s, peak in ((2.0, 5000), (9.0, 4000), (3.0, None)):
        forecasts.learn(step_s, peak)
    same, double = await forecasts.one(), await forecasts.one(Shape(width_px=128, height_px=64))
    assert (same.step_s, same.activation_bytes, same.sample_count) == (2.0, 5000, 3)
    assert (double.step_s, double.activation_bytes) == (4.0, 10_000)
    batch = await forecasts.one(Shape(width_px=64, height_px=64, images=3))
    assert (batch.step_s, batch.activation_bytes) == (6.0, 15_000)
    (other,) = await forecasts.of("sim-1")
    assert other.step_s is None


async def test_the_nearest_measured_sizes_tell_most(forecasts: Forecasts) -> None:
    forecasts.learn(1.0, 1000, 64)
    forecasts.learn(4.0, 4000, 128)
    forecasts.learn(100.0, 64_000, 256)
    assert (await forecasts.one(Shape(width_px=72, height_px=64))).activation_bytes == 1125
    assert (await forecasts.one(Shape(width_px=256, height_px=192))).activation_bytes == 44_000


@pytest.mark.parametrize("edge", [96, 512, 1024])
async def test_two_measured_sizes_tell_the_memory_of_others_within_10_percent(forecasts: Forecasts, edge: int) -> None:
    def peak(edge: int) -> int:
        """A fixed part (workspaces, prompts) and one that grows with the pixels, a little faster."""
        return 3_000_000 + round(100 * (edge * edge) ** 1.005)

    for measured in (64, 256):
        forecasts.learn(1.0, peak(measured), measured)
    found = (await forecasts.one(Shape(width_px=edge, height_px=edge))).activation_bytes
    assert found == pytest.approx(peak(edge), rel=0.1)


async def test_loaded_weights_are_no_activation(forecasts: Forecasts) -> None:
    one = loaded_as(forecasts.catalogue.default(), "sim-0")
    part = LoadedComponent(id="unet", bytes=3000, precision="float32")
    forecasts.loaded.put(msgspec.structs.replace(one, components=(part,)))
    forecasts.loaded.put(msgspec.structs.replace(one, id="m@sim-1", device_id="sim-1", components=(part,)))
    forecasts.learn(2.0, 5000)
    assert (await forecasts.one()).activation_bytes == 2000
    forecasts.learn(2.0, 1000)
    assert (await forecasts.one()).activation_bytes == 2000


async def test_what_networks_held_that_read_pictures_first_is_told_from_what_steps_hold(forecasts: Forecasts) -> None:
    own = forecasts.catalogue.default().id
    prompt = ResolvedImagePrompt(
        model_id=own, model_sha256="", encoder_model_id=own, encoder_sha256="", edge_px=224, images=()
    )
    resolved = msgspec.structs.replace(
        resolve(Generation(prompt="an owl"), forecasts.catalogue.default()), image_prompts=(prompt,)
    )
    readers = forecasts.estimates.readers_bytes(resolved, forecasts.devices.get("sim-0").device)
    assert readers > 1_000_000
    assert forecasts.estimates.guides_bytes(resolved, forecasts.devices.get("sim-0").device) == 0
    forecasts.learn(2.0, readers + 100, image_prompts=(prompt,))
    assert (await forecasts.one()).activation_bytes is None
    forecasts.learn(2.0, 2 * readers, image_prompts=(prompt,))
    assert (await forecasts.one()).activation_bytes == 2 * readers


async def test_an_adapter_that_each_step_reads_is_forecast_with_the_steps(forecasts: Forecasts) -> None:
    own, device = forecasts.catalogue.default(), forecasts.devices.get("sim-0").device
    prompt = ResolvedImagePrompt(
        model_id=own.id, model_sha256="", encoder_model_id="", encoder_sha256="", edge_px=224, images=()
    )
    plain = resolve(Generation(prompt="an owl"), own)
    held = {
        family: (forecasts.estimates.guides_bytes(shown, device), forecasts.estimates.readers_bytes(shown, device))
        for family in ("flux1", "sd3")
        for shown in [msgspec.structs.replace(plain, family=family, image_prompts=(prompt,))]
    }
    size = held["flux1"][1]
    assert size > 1_000_000
    assert held == {"flux1": (0, size), "sd3": (size, 0)}


async def test_what_a_controlnet_keeps_of_earlier_prompts_is_forecast_and_no_activation(
    forecasts: Forecasts, tmp_path: Path
) -> None:
    own, device = forecasts.catalogue.default(), forecasts.devices.get("sim-0").device
    used = UsedPicture(blob_id="b-1", sha256="")
    # A U-Net keeps what a ControlNet that was copied from it keeps.
    net = ResolvedControl(model_id=own.id, model_sha256="", image=used, fit=ImageFit.COVER)
    still = msgspec.structs.replace(resolve(Generation(prompt="an owl"), own), controls=(net,), steps=4)
    changing = msgspec.structs.replace(still, prompt="an [owl:cat:0.5]", prompt_syntax=Syntax.A1111)
    again = ResolvedHires(
        width_px=128,
        height_px=128,
        filter=Resampling.BICUBIC,
        of_pixels=False,
        strength=0.5,
        steps=8,
        sampler=still.sampler,
        sigma_schedule=still.sigma_schedule,
        guidance_scale=still.guidance_scale,
        eta=None,
    )
    network = forecasts.estimates.guides_bytes(still, device)
    more = forecasts.estimates.guides_bytes(changing, device) - network
    widths = [
        tensor.shape[0] for tensor in _tensors(own) if tensor.name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    ]
    assert more == 2 * 77 * sum(widths) * 4 > 0
    larger = msgspec.structs.replace(still, hires_pass=msgspec.structs.replace(again, upscaler_model_id=own.id))
    assert forecasts.estimates.guides_bytes(larger, device) == 2 * network
    # The second pass reads the network, too, and keeps no more at once.
    twice = msgspec.structs.replace(changing, hires_pass=again)
    assert forecasts.estimates.guides_bytes(twice, device) == network + more
    forecasts.learn(2.0, network + more + 100, prompt=changing.prompt, prompt_syntax=Syntax.A1111, controls=(net,))
    assert (await forecasts.one()).activation_bytes == 100


def _tensors(model: Model) -> Sequence[TensorEntry]:
    paths = [Path(file.real) for file in model.files if file.path.endswith(".safetensors")]
    return [tensor for path in paths for tensor in read_header(path).tensors]


async def test_a_run_without_steps_teaches_nothing(forecasts: Forecasts) -> None:
    forecasts.learn(steps=0)
    assert (await forecasts.one()).sample_count == 0


async def test_as_many_pictures_fit_at_once_as_the_rest_has_room_for(forecasts: Forecasts) -> None:
    forecasts.learn(1.0, 1_000_000)
    found = await forecasts.one()
    room = 100_000_000 - found.weights_bytes
    assert found.max_batch(SQUARE) == min(MAX_BATCH, room // 1_000_000) > 1
    assert msgspec.structs.replace(found, activation_bytes=room).max_batch(SQUARE) == 1
    assert msgspec.structs.replace(found, activation_bytes=room + 1).max_batch(SQUARE) == 0
    assert msgspec.structs.replace(found, free_bytes=-5).max_batch(SQUARE) == 0
    assert msgspec.structs.replace(found, free_bytes=-5).available_bytes == 0
    assert msgspec.structs.replace(found, activation_bytes=1).max_batch(SQUARE) == MAX_BATCH


async def test_a_precision_in_which_the_device_does_not_compute_is_named(forecasts: Forecasts) -> None:
    tried = (
        PrecisionSupport(precision="float32", supported=True),
        PrecisionSupport(precision="float16", supported=False),
    )
    device = msgspec.structs.replace(a_device(), precision_support=tried)
    forecasts.devices.described("sim-0", device, DeviceReach(capacity=2), ready=True)
    asked = Execution(precision="float32", vae_precision="float16")
    (found,) = await forecasts.of("sim-0", execution=asked)
    assert found.unsupported == ("precision float16",)
    (found,) = await forecasts.of("sim-0", execution=Execution(precision="float32", quantization="int8"))
    assert found.unsupported == ("quantization int8",)
    (found,) = await forecasts.of("sim-0", execution=Execution(quantization="none"))
    assert found.unsupported == ()


async def test_headers_that_a_quantized_load_needs_are_read_beside_the_event_loop(
    forecasts: Forecasts, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[threading.Thread]()

    def opening(model: Model, path: str) -> BinaryIO:
        threads.add(threading.current_thread())
        return open_judged(model, path)

    monkeypatch.setattr(component_headers, "open_judged", opening)
    (found,) = await forecasts.of("sim-0", execution=Execution(quantization="int8"))
    assert found.weights_bytes < (await forecasts.one()).weights_bytes
    assert threads
    assert threading.main_thread() not in threads


async def test_a_model_that_is_there_loads_in_no_time(forecasts: Forecasts) -> None:
    model = forecasts.catalogue.default()
    parts = (await forecasts.one()).parts
    held = tuple(LoadedComponent(id=part.component, bytes=part.bytes, precision=part.precision) for part in parts)
    forecasts.loaded.put(msgspec.structs.replace(loaded_as(model, "sim-0"), components=held, load_s=4.0))
    found = await forecasts.one()
    assert (found.weights_bytes, found.load_s, found.sample_count) == (0, 0.0, 1)
    forecasts.loaded.remove(f"{model.id}@sim-0")
    assert (await forecasts.one()).load_s == 4.0


async def test_what_is_against_a_load_is_found_with_the_reason_of_the_device(forecasts: Forecasts) -> None:
    fits = await forecasts.one()
    assert fits.findings() == []
    lacks = msgspec.structs.replace(fits, free_bytes=fits.weights_bytes - 1, unsupported=("float8", "bfloat16"))
    assert [finding.reason for finding in lacks.findings()] == [
        ErrorReason.NOT_SUPPORTED_ON_DEVICE,
        ErrorReason.DEVICE_OUT_OF_MEMORY,
    ]
    assert "lacks float8 and bfloat16" in lacks.findings()[0].message
    assert "lacks 1 B," in lacks.findings()[1].message
    cpu = msgspec.structs.replace(lacks.device, id="cpu")
    on_host = msgspec.structs.replace(lacks, device=cpu, unsupported=())
    assert [finding.reason for finding in on_host.findings()] == [ErrorReason.HOST_OUT_OF_MEMORY]


async def test_a_load_of_nothing_takes_no_time_and_models_of_later_passes_have_their_bytes(
    forecasts: Forecasts,
) -> None:
    model, device = forecasts.catalogue.default(), forecasts.devices.get("sim-0").device
    assert forecasts.estimates.load_s(model, "sim-0", 0) == (0.0, 0)
    assert forecasts.estimates.load_s(model, "sim-0", 1) == (None, 0)
    resolved = resolve(Generation(prompt="an owl", width_px=64, height_px=64), model)
    assert forecasts.estimates.later_bytes(resolved, device) == ()
    assert forecasts.estimates.activation_bytes(resolved, "sim-0") is None
    forecasts.learn(peak=5000)
    assert forecasts.estimates.activation_bytes(resolved, "sim-0") == 5000


@pytest.mark.parametrize(
    ("measured", "pixels", "told"),
    [
        ({}, 100, None),
        ({100: [None]}, 100, None),
        ({100: [0]}, 100, 0),
        ({100: [0]}, 900, 0),
        ({100: [50, 70, None]}, 100, 70),
        ({100: [70]}, 300, 210),
        ({100: [70], 200: [90]}, 300, 110),
        ({100: [70], 200: [90]}, 100, 70),
        ({100: [70], 200: [70]}, 900, 70),
        ({100: [90], 200: [70]}, 300, 105),
        ({100: [100], 200: [300]}, 10, 0),
    ],
)
def test_memory_beside_the_weights_lies_on_the_line_through_what_was_measured(
    measured: dict[int, list[int | None]], pixels: int, told: int | None
) -> None:
    by_shape = {Shape(width_px=size, height_px=1): runs for size, runs in measured.items()}
    assert estimates._on_a_line(by_shape, pixels) == told  # pyright: ignore[reportPrivateUsage]


def estimated(**facts: Any) -> Estimate:
    plain: dict[str, Any] = {
        "device": a_device("cpu" if facts.pop("on_host", False) else "sim-0"),
        "parts": (PartFootprint(component="unet", precision="float16", bytes=600),),
        "activation_bytes": 400,
        "free_bytes": 1000,
        "evictable_bytes": 0,
        "evictions": (),
        "load_s": None,
        "step_s": None,
        "sample_count": 0,
    }
    return Estimate(**plain | facts)


@pytest.mark.parametrize(
    ("facts", "available", "shortfall", "batch"),
    [
        ({}, 1000, 0, 1),
        ({"free_bytes": 999}, 999, 1, 0),
        ({"free_bytes": 999, "evictable_bytes": 1}, 1000, 0, 1),
        ({"free_bytes": -50, "evictable_bytes": 100}, 100, 900, 0),
        ({"free_bytes": 1400}, 1400, 0, 2),
        ({"free_bytes": 1399}, 1399, 0, 1),
        ({"free_bytes": 10**9}, 10**9, 0, 64),
        ({"free_bytes": None}, None, None, None),
        ({"activation_bytes": None}, 1000, 0, None),
        ({"activation_bytes": 0}, 1000, 0, None),
        ({"activation_bytes": None, "free_bytes": 599}, 599, 1, None),
    ],
)
def test_what_a_load_lacks_is_what_unloading_all_unused_models_leaves(
    facts: dict[str, Any], available: int | None, shortfall: int | None, batch: int | None
) -> None:
    found = estimated(**facts)
    assert (found.weights_bytes, found.available_bytes, found.shortfall_bytes) == (600, available, shortfall)
    assert found.max_batch(SQUARE) == batch
    assert found.max_batch(replace(SQUARE, images=2)) == (None if batch is None else min(64, available_batch(found)))


def available_batch(found: Estimate) -> int:
    """Pictures that fit where 400 bytes are those of two."""
    return max(0, ((found.available_bytes or 0) - 600) * 2 // 400)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, []),
        ({"free_bytes": None}, []),
        (
            {"unsupported": ("precision float16",)},
            [(ErrorReason.NOT_SUPPORTED_ON_DEVICE, "sim-0 lacks precision float16")],
        ),
        (
            {"activation_bytes": 400 + 2**20},
            [
                (
                    ErrorReason.DEVICE_OUT_OF_MEMORY,
                    "sim-0 lacks 1.0 MiB, although all unused models were unloaded",
                )
            ],
        ),
        (
            {"free_bytes": 0, "on_host": True, "unsupported": ("a", "b")},
            [
                (ErrorReason.NOT_SUPPORTED_ON_DEVICE, "cpu lacks a and b"),
                (ErrorReason.HOST_OUT_OF_MEMORY, "cpu lacks 1000 B, although all unused models were unloaded"),
            ],
        ),
    ],
)
def test_reasons_against_a_load_name_the_device_and_what_it_lacks(
    facts: dict[str, Any], told: list[tuple[ErrorReason, str]]
) -> None:
    assert [(one.reason, one.message) for one in estimated(**facts).findings()] == told
