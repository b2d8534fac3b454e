"""What goes over a worker's pipe: domain values as typed msgpack. Decoding checks every type; there is no pickle."""

from typing import Final

import msgspec

from domains.device.device import Device
from domains.processing.worker import Order, Report

DESCRIBE: Final = "/deviceops.worker/Describe"
"""Answers one `Device`, once torch is there and has tried the device."""
CARRY_OUT: Final = "/deviceops.worker/CarryOut"
"""Takes one `Order`, answers its `Report`s; cancelling it asks the order to stop."""

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_device = msgspec.msgpack.Decoder(Device).decode
