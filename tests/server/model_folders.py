"""Folders of models for servers: copies of the embedded model with other weights."""

import shutil
from pathlib import Path

from domains.model.catalogue import EMBEDDED


def another(folder: Path, *, sharing: tuple[str, ...] = ()) -> Path:
    """A copy of the embedded model in which each component has other weights, except those of `sharing`.

    The last byte of a file is the high byte of a half-precision number: a flipped bit in its exponent stays a number.
    """
    # No links: one changes the time of the embedded files, which a server of another test may be reading.
    shutil.copytree(EMBEDDED / "emoji-sd", folder)
    for path in folder.rglob("*.safetensors"):
        if path.parent.name in sharing:
            continue
        data = bytearray(path.read_bytes())
        data[-1] ^= 0x04
        path.unlink()
        path.write_bytes(data)
    return folder
