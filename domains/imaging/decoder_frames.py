"""The frames between `decoder_process` and `decoder_child`: an ASK before each file, an ANSWER before each picture."""

import struct

import msgspec

READY = b"ready\n"
"""The first bytes of the process: its limits are set."""
ASK = struct.Struct("<QBQ")
"""Largest number of pixels, channels, size of the file in bytes. The file follows. 0 channels: its texts are asked for."""
ANSWER = struct.Struct("<BQQ")
"""PICTURE, height and width, then the pixels; REFUSED, size in bytes and 0, then a `Refused` as MessagePack; or TEXTS, size
in bytes and 0, then an object of texts as MessagePack."""
PICTURE, REFUSED, TEXTS = 1, 2, 3
TEXTS_BYTES = 5 << 20
"""Largest object of texts: four texts of 1 MiB."""
REFUSED_BYTES = 16 * 1024
"""Largest `Refused`."""


class Refused(msgspec.Struct, frozen=True):
    """The reason why a file is no usable image."""

    problem: str
    """Continues the words "the image …"."""
    facts: dict[str, str]
