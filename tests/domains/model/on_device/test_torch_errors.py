"""Torch's errors in our words."""

import errno

import pytest
import structlog
import torch

from domains.errors import DataLoss, ErrorReason
from domains.model.on_device import translate

CPU = torch.device("cpu")


def test_the_hosts_memory_running_out_is_known_by_the_real_error() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50, dtype=torch.uint8)
    told = translate(raised.value, CPU, "denoising")
    assert told.reason is ErrorReason.HOST_OUT_OF_MEMORY
    assert told.facts == {"device": "cpu", "doing": "denoising"}


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 2 << 30),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.50 MiB. GPU 0 has"), 41 << 19),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), None),
        (
            RuntimeError(
                "Could not allocate tensor with 17179869184 bytes. There is not enough GPU video memory available!"
            ),
            16 << 30,
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
    ],
    ids=["CUDA", "CUDA, a fraction", "CUDA, no size", "DirectML", "pinned memory", "cuBLAS"],
)
def test_a_devices_memory_running_out_is_known_with_what_was_needed(error: Exception, needed: int | None) -> None:
    told = translate(error, CPU, "decoding")
    assert told.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert told.facts.get("needed_bytes") == (None if needed is None else str(needed))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "could not create a primitive",
        "could not execute a primitive",
    ],
)
def test_a_drivers_error_asks_for_a_new_worker(text: str) -> None:
    told = translate(RuntimeError(text), CPU, "denoising")
    assert told.reason is ErrorReason.DRIVER_ERROR
    assert text not in told.message


def test_an_operation_that_onednn_lacks_is_no_corrupt_worker() -> None:
    told = translate(RuntimeError("could not create a primitive descriptor for the matmul primitive"), CPU, "denoising")
    assert told.reason is ErrorReason.INVARIANT_BROKEN


def test_our_own_errors_pass_unchanged() -> None:
    ours = DataLoss("unet lacks a tensor")
    assert translate(ours, CPU, "loading") is ours


def test_an_unexpected_error_keeps_its_text_for_the_log() -> None:
    with structlog.testing.capture_logs() as lines:
        told = translate(KeyError("secret"), CPU, "loading")
    assert told.reason is ErrorReason.INVARIANT_BROKEN
    assert "secret" not in told.message
    assert [(line["log_level"], str(line["exc_info"])) for line in lines] == [("error", "'secret'")]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, ErrorReason.STORAGE_FULL),
        (errno.EIO, ErrorReason.STORAGE_FAILED),
        (errno.EMFILE, ErrorReason.QUOTA_EXCEEDED),
        (errno.ENOMEM, ErrorReason.HOST_OUT_OF_MEMORY),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(number: int, reason: ErrorReason) -> None:
    assert translate(OSError(number, "no"), CPU, "loading").reason is reason
