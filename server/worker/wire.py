"""What goes over a worker's pipe: domain values as typed msgpack. Decoding checks every type; there is no pickle."""

from typing import Final

import msgspec

from domains.device.simulated.fault_book import SimSetup
from domains.processing.worker import Order, PreviewOrder, Report
from domains.stop import Stop, StopKind

DESCRIBE: Final = "/deviceops.worker/Describe"
"""Answers `Described`, once torch is there and has tried the device; `Failed`: why this process cannot serve it."""
SETUP: Final = "/deviceops.worker/Setup"
"""Takes the `SimSetup` of a simulated device; before `DESCRIBE`, and again when the script changes."""
CARRY_OUT: Final = "/deviceops.worker/CarryOut"
"""Takes one `Order`, answers its `Report`s; cancelling it asks the order to stop, with a `Stop` as JSON for its reason.

The call of a `GenerateOrder` takes `PreviewOrder`s as further messages.
"""

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_previews = msgspec.msgpack.Decoder(PreviewOrder).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_stop = msgspec.json.Decoder(Stop).decode
decode_setup = msgspec.msgpack.Decoder(SimSetup).decode


def encode_stop(stop: Stop) -> str:
    """As the reason of a cancelled call."""
    return msgspec.json.encode(stop).decode()


def decode_stop(reason: str) -> Stop:
    """The request to stop. A call that was left without one is not wanted any more."""
    try:
        return _decode_stop(reason)
    except msgspec.DecodeError:
        return Stop(kind=StopKind.CANCEL, cause=reason)
