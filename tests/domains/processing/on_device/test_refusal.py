"""A worker that sees one GPU alone speaks of it by the name that everybody uses."""

from domains.errors import ErrorReason
from domains.inference.outcome import RunFailed
from domains.processing.on_device.refusal import renamed
from domains.progress import Receipt


def test_an_error_names_the_device_as_the_server_does() -> None:
    told = RunFailed(
        reason=ErrorReason.DRIVER_ERROR,
        message="the driver of cuda:0 failed",
        facts={"device": "cuda:0", "doing": "decoding"},
        receipt=Receipt(),
    )
    here = renamed(told, "cuda:0", "cuda:3")
    assert here.message == "the driver of cuda:3 failed"
    assert here.facts == {"device": "cuda:3", "doing": "decoding"}
    assert renamed(told, "cuda:0", "cuda:0") is told
