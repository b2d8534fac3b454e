"""Methods and encoding of a worker's calls: domain values as typed msgpack. Decoding checks every type; no pickle."""

from typing import Final

import msgspec

from domains.device.simulated.fault_counts import SimSetup
from domains.processing.workers.worker import Order, PreviewOrder, Report
from domains.stop import Stop, StopKind

DESCRIBE: Final = "/deviceops.worker/Describe"
"""Answers `Described` when the device is probed, or `RunFailed` if this process cannot serve it."""
SETUP: Final = "/deviceops.worker/Setup"
"""Takes the `SimSetup` of a simulated device: before `DESCRIBE`, and again when the script changes."""
CARRY_OUT: Final = "/deviceops.worker/CarryOut"
"""Takes one `Order`, answers its `Report`s. A cancellation asks the order to stop; its reason is a `Stop` as JSON.

The call of a `GenerateOrder` takes `PreviewOrder`s as further messages.
"""

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_previews = msgspec.msgpack.Decoder(PreviewOrder).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_stop = msgspec.json.Decoder(Stop).decode
decode_setup = msgspec.msgpack.Decoder(SimSetup).decode


def encode_stop(stop: Stop) -> str:
    """The reason of a call's cancellation."""
    return msgspec.json.encode(stop).decode()


def decode_stop(reason: str) -> Stop:
    """The request to stop in a cancellation's reason. Without one the caller left, and the order is cancelled."""
    try:
        return _decode_stop(reason)
    except msgspec.DecodeError:
        return Stop(kind=StopKind.CANCEL, cause=reason)
