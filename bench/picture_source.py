"""The process that has the pictures of `shared_memory`: it hands them over as it is asked to, until its stdin ends.

    python -m bench.picture_source json SIZE               a JSON line each, with the bytes as base64
    python -m bench.picture_source frames SIZE             a raw frame each, over server.stdio
    python -m bench.picture_source shared SIZE FOLDER      a JSON line each, with the name of the file that holds it

For JSON and shared, each line of stdin asks for so many pictures; for frames, each call does.
"""

import base64
import json
import os
import random
import sys
from pathlib import Path

from isal import isal_zlib

PICTURES = 4
"""Different ones, handed over in turn, so that no cache holds the only one."""


def pictures(size: int) -> list[bytes]:
    """The same in every process."""
    return [random.Random(seed).randbytes(size) for seed in range(PICTURES)]


def send_json(size: int) -> None:
    """Base64 in a line of JSON."""
    made = pictures(size)
    for line in sys.stdin:
        for number in range(int(line)):
            text = base64.b64encode(made[number % PICTURES]).decode("ascii")
            sys.stdout.write(json.dumps({"number": number, "data": text}) + "\n")
        sys.stdout.flush()


def send_shared(size: int, folder: Path) -> None:
    """The picture lies in memory that both can map; its name goes through the pipe."""
    paths = [folder / f"picture-{os.getpid()}-{number}" for number in range(PICTURES)]
    sums: list[int] = []
    for path, data in zip(paths, pictures(size), strict=True):
        path.write_bytes(data)
        sums.append(isal_zlib.crc32(data))
    generation = 0
    for line in sys.stdin:
        for number in range(int(line)):
            of, generation = number % PICTURES, generation + 1
            told = {"path": str(paths[of]), "size": size, "crc32": sums[of], "generation": generation}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


def send_frames(size: int) -> None:
    """Raw frames of one call, which names how many it wants."""
    from server.stdio.command import Ended, Message
    from server.stdio.peer import FramePeer
    from server.stdio.pipe import protect_stdout

    peer = FramePeer(*protect_stdout())
    made = pictures(size)
    while not isinstance(command := peer.next(), Ended):
        if isinstance(command, Message):
            for number in range(int(command.data)):
                peer.send_raw(command.call_id, made[number % PICTURES])
            peer.close(command.call_id)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["json", size]:
            send_json(int(size))
        case ["shared", size, folder]:
            send_shared(int(size), Path(folder))
        case ["frames", size]:
            send_frames(int(size))
        case _:
            raise SystemExit(__doc__)
