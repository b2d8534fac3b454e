"""Trying, measuring and freeing on a CUDA device. Run with `-m gpu`."""

import gc
import json
import subprocess
import sys

import pytest
import torch

from domains.amounts import bytes_told
from domains.device.benchmark import BenchmarkReport, Suite
from domains.device.device import Backend, Device, DeviceKind
from domains.device.health import HealthDepth, Verdict
from domains.device.on_device.benchmark import run
from domains.device.on_device.health_check import allocate, run_check, run_checks
from domains.device.on_device.memory_patterns import memory_patterns
from domains.device.on_device.trial import Trial
from domains.errors import ErrorReason
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.on_device.allocator import Runtime, compact, empty_caches, measure

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda:0")
MIB = 2**20
ABOUT = Device(
    id="gpu-0",
    aliases=(),
    display_name="",
    kind=DeviceKind.DISCRETE_GPU,
    backend=Backend.CUDA,
    backend_index=0,
    vendor="",
    total_memory_bytes=None,
    precision_support=(),
)


@pytest.fixture(autouse=True)
def nothing_cached() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def test_a_full_check_passes_and_leaves_nothing_behind() -> None:
    before = torch.cuda.memory_allocated(CUDA)
    checks = list(run_checks(CUDA, HealthDepth.FULL, lambda: False))
    print(*checks, sep="\n")
    assert [check.verdict for check in checks] == [Verdict.HEALTHY] * 6
    tested = next(one.value for check in checks for one in check.measurements if one.name == "tested_bytes")
    assert tested > 0.5 * torch.cuda.mem_get_info(CUDA)[0]
    gc.collect()
    # A library's workspace may stay; a tensor of a check may not.
    assert torch.cuda.memory_allocated(CUDA) - before < 64 * MIB


def test_a_wrong_word_in_device_memory_is_found() -> None:
    found = memory_patterns(Trial(device=CUDA, corrupt=lambda words: words | 4), limit_bytes=1024 * MIB)
    assert found.verdict is Verdict.UNHEALTHY
    assert "found 0x0000000000000004, expected 0x0000000000000000" in found.message


def test_an_allocation_beyond_the_memory_is_told_and_leaks_nothing() -> None:
    before = torch.cuda.memory_allocated(CUDA)
    free, total = torch.cuda.mem_get_info(CUDA)
    check = run_check("allocate", lambda trial: allocate(trial, 2 * total), Trial(device=CUDA))
    assert (check.verdict, check.failure_reason) == (Verdict.UNHEALTHY, ErrorReason.DEVICE_OUT_OF_MEMORY)
    assert f"needed {bytes_told(2 * total)}" in check.message
    assert torch.cuda.memory_allocated(CUDA) == before
    assert torch.cuda.mem_get_info(CUDA)[0] == free
    assert measure(CUDA, ()).allocation_failure_count >= 1


@pytest.fixture(scope="module")
def report() -> BenchmarkReport:
    return run(CUDA, tuple(Suite), 60.0, lambda: False, lambda completed, total, name: None, about=ABOUT)


def test_figures_are_plausible_against_each_other(report: BenchmarkReport) -> None:
    figures = {result.median.name: result.median.value for result in report.results}
    for result in report.results:
        print(result.median, result.sample_count, result.workload)
    print(report.warnings, report.duration_s)
    for way in ("host_to_device", "device_to_host"):
        assert figures[f"{way}_pinned"] >= 0.95 * figures[f"{way}_pageable"]
    assert figures["device_copy"] > figures["host_to_device_pinned"]
    for operation in ("matmul", "conv2d", "scaled_dot_product_attention"):
        assert figures[f"{operation}_float16"] > figures[f"{operation}_float32"]
    assert figures["differing_results"] == 0
    assert all(result.sample_count >= 3 for result in report.results if result.suite is not Suite.STABILITY)
    assert report.duration_s < 60


def test_numbers_are_torchs_own_and_owners_add_up() -> None:
    held = torch.empty(48 * MIB, dtype=torch.uint8, device=CUDA)
    model = MemoryOwner(kind=OwnerKind.LOADED_MODEL, id="m", live_bytes=held.nbytes)
    measured = measure(CUDA, (model,), Runtime(context_bytes=123))
    print(measured)
    runtime = sum(owner.live_bytes for owner in measured.owners if owner.kind is OwnerKind.RUNTIME)
    assert runtime > 0
    assert measured.live_bytes == torch.cuda.memory_allocated(CUDA) + runtime
    assert measured.held_bytes == torch.cuda.memory_reserved(CUDA) + runtime
    assert measured.cached_bytes == torch.cuda.memory_reserved(CUDA) - torch.cuda.memory_allocated(CUDA)
    assert measured.total_bytes == torch.cuda.mem_get_info(CUDA)[1]
    assert sum(owner.live_bytes for owner in measured.owners) == measured.live_bytes
    assert measured.owners[0] == model
    del held
    assert (measure(CUDA, ()).live_bytes or 0) == (measured.live_bytes or 0) - 48 * MIB


def test_a_fragmented_allocator_shows_it_and_compacting_lowers_it() -> None:
    pieces = [torch.empty(32 * MIB, dtype=torch.uint8, device=CUDA) for _ in range(16)]
    # A piece of a freed one stays in use, so its rest stays with the allocator.
    large = torch.empty(96 * MIB, dtype=torch.uint8, device=CUDA)
    del large
    rest = torch.empty(32 * MIB, dtype=torch.uint8, device=CUDA)
    del pieces[::2]
    before = measure(CUDA, ())
    assert before.largest_free_block_bytes == 64 * MIB
    assert (before.fragmentation_ratio or 0) > 0.5
    # Some of the pieces may lie in segments of which libraries and earlier tests use another part.
    unused = sum(one["total_size"] for one in torch.cuda.memory_snapshot() if not one["allocated_size"])
    assert unused >= 4 * 32 * MIB
    freed = compact(CUDA)
    after = measure(CUDA, ())
    print(before, after, sep="\n")
    assert freed is not None
    assert freed == unused
    assert (before.held_bytes or 0) - (after.held_bytes or 0) == freed
    assert after.fragmentation_ratio is not None
    assert after.fragmentation_ratio < (before.fragmentation_ratio or 0) / 2
    assert after.live_bytes == before.live_bytes
    assert rest.numel() == 32 * MIB


def test_emptied_caches_are_free_for_others() -> None:
    piece = torch.empty(256 * MIB, dtype=torch.uint8, device=CUDA)
    del piece
    before = torch.cuda.mem_get_info(CUDA)[0]
    freed = empty_caches(CUDA)
    assert freed is not None
    assert freed >= 256 * MIB
    assert torch.cuda.mem_get_info(CUDA)[0] - before == freed


_STICKY = """
import json, torch
from domains.device.health import HealthDepth
from domains.device.on_device.health_check import run_checks

device = torch.device("cuda:0")
torch.zeros(4, device=device)[torch.tensor([9], device=device)]
checks = run_checks(device, HealthDepth.QUICK, lambda: False)
print(json.dumps([[check.name, check.verdict, check.failure_reason] for check in checks]))
"""


def test_a_broken_context_makes_the_device_unhealthy() -> None:
    # In a process of its own: nothing works there afterwards.
    child = subprocess.run([sys.executable, "-c", _STICKY], capture_output=True, text=True, timeout=120, check=False)
    checks = json.loads(child.stdout.splitlines()[-1])
    assert checks[0] == ["allocate", "unhealthy", "DRIVER_ERROR"], child.stderr
    assert {verdict for _, verdict, _ in checks[1:]} == {"skipped"}


_START = """
import torch
from domains.memory.measure import OwnerKind
from domains.memory.on_device.allocator import measure, start

device = torch.device("cuda:0")
told = start("cuda:0")
again = start("cuda:0")
runtime = [one.live_bytes for one in measure(device, (), told).owners if one.kind is OwnerKind.RUNTIME]
print(told.context_bytes, again.context_bytes, again.workspace_bytes, *runtime)
"""


def test_what_the_runtime_takes_is_told_once_at_the_start() -> None:
    child = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, timeout=120, check=True)
    told, again, again_workspace, runtime = child.stdout.split()
    print(child.stdout)
    assert 32 * MIB < int(told) < 4096 * MIB
    assert (again, again_workspace) == ("None", "0")
    assert 32 * MIB < int(runtime) < 4096 * MIB


_WORK = """
import json, sys
import torch
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.on_device.allocator import measure, start

device = torch.device("cuda:0")
runtime = start("cuda:0")
held = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
model = MemoryOwner(kind=OwnerKind.LOADED_MODEL, id="m", live_bytes=held.nbytes)
with torch.inference_mode():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        left = torch.ones(2048, 2048, dtype=dtype, device=device)
        torch.nn.functional.linear(left, left, left[0])
        torch.nn.functional.conv2d(left.view(1, 64, 256, 256), left.view(-1)[: 64 * 64 * 9].view(64, 64, 3, 3))
        tokens = left.view(4, 8, 1024, 128)
        torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        del left, tokens
torch.cuda.synchronize()
told = measure(device, (model,), runtime)
nobody = sum(one.live_bytes for one in told.owners if one.kind is OwnerKind.UNATTRIBUTED)
print(json.dumps({"workspace": runtime.workspace_bytes, "nobody": nobody, "live": told.live_bytes,
    "allocated": torch.cuda.memory_allocated(), "peak": told.peak_live_bytes}))
"""


def test_what_libraries_keep_for_their_kernels_is_the_runtimes() -> None:
    child = subprocess.run([sys.executable, "-c", _WORK], capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(child.stdout)
    print(told)
    assert told["workspace"] > 0
    assert told["nobody"] <= 0.02 * told["allocated"]
    assert told["peak"] > told["live"]
