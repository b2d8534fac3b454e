"""What goes over a worker's pipe: domain values as typed msgpack. Decoding checks every type; there is no pickle."""

from typing import Final

import msgspec

from domains.device.simulated.fault_book import SimSetup
from domains.processing.worker import Order, PreviewOrder, Report

DESCRIBE: Final = "/deviceops.worker/Describe"
"""Answers `Described`, once torch is there and has tried the device; `Failed`: why this process cannot serve it."""
SETUP: Final = "/deviceops.worker/Setup"
"""Takes the `SimSetup` of a simulated device; before `DESCRIBE`, and again when the script changes."""
CARRY_OUT: Final = "/deviceops.worker/CarryOut"
"""Takes one `Order`, answers its `Report`s; cancelling it asks the order to stop.

The call of a `GenerateOrder` takes `PreviewOrder`s as further messages.
"""

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_previews = msgspec.msgpack.Decoder(PreviewOrder).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_setup = msgspec.msgpack.Decoder(SimSetup).decode
