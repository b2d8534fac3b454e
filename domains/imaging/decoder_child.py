"""The process that decodes untrusted pictures. It has no secrets and writes no file; a limit of memory or time ends it.

python -m domains.imaging.decoder_child      reads and writes the frames of `decoder_frames` on stdin and stdout
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from domains.errors import InvalidRequest
from domains.imaging.decode import decode
from domains.imaging.decoder_frames import ANSWER, ASK, PICTURE, READY, REFUSED, REFUSED_BYTES, TEXTS, Refused
from domains.imaging.texts import read_texts

COMPUTE_S = 1.5
"""Processor time for one picture. Longer: SIGPROF ends the process."""
ADDRESS_SPACE_BYTES = 4 << 30
"""Address space, of which libraries and threads' stacks reserve about 1 GiB."""
_SHOWN = 1_000


def limit() -> None:
    """Limit this process's address space, and forbid writing files and core dumps. Windows has no such limits."""
    if sys.platform == "win32":
        return
    import resource

    for name, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        # 1 byte: for 0, Linux still sends the dump to a program that `core_pattern` names (core(5)).
        (resource.RLIMIT_CORE, 1),
    ):
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (most, most) if hard == resource.RLIM_INFINITY else (min(most, hard), hard))


def serve(decoder: Callable[..., NDArray[np.uint8]] = decode) -> None:
    """Answer until stdin ends."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's print must not reach the frames
    limit()
    sink.write(READY)
    sink.flush()
    answer_all(source, sink, decoder)


def answer_all(source: BinaryIO, sink: BinaryIO, decoder: Callable[..., NDArray[np.uint8]] = decode) -> None:
    """Answer until `source` ends."""
    while len(head := source.read(ASK.size)) == ASK.size:
        max_pixels, channels, size = ASK.unpack(head)
        data = source.read(size)
        if len(data) < size:
            return
        if channels:
            _answer(sink, partial(decoder, data, max_pixels=max_pixels, channels=channels))
        else:
            _answer(sink, partial(read_texts, data))


def _answer(sink: BinaryIO, read: Callable[[], NDArray[np.uint8] | dict[str, str]]) -> None:
    try:
        _compute_for(COMPUTE_S)
        try:
            found = read()
        finally:
            _compute_for(0)
    except InvalidRequest as error:
        problem = error.violations[0].message.removeprefix("the image ")[:_SHOWN]
        body = msgspec.msgpack.encode(Refused(problem, dict(error.facts)))
        if len(body) > REFUSED_BYTES:
            body = msgspec.msgpack.encode(Refused(problem, {}))
        sink.write(ANSWER.pack(REFUSED, len(body), 0))
        sink.write(body)
    else:
        if isinstance(found, dict):
            body = msgspec.msgpack.encode(found)
            sink.write(ANSWER.pack(TEXTS, len(body), 0))
            sink.write(body)
        else:
            sink.write(ANSWER.pack(PICTURE, found.shape[0], found.shape[1]))
            sink.write(np.ascontiguousarray(found).data)
    sink.flush()


def _compute_for(seconds: float) -> None:
    """End the process after this much processor time; 0: never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    serve()
