"""The hello, the first frame of each end."""

from deviceops.stdio.v1.frame_pb2 import Frame, FrameHello
from server.stdio.credit import INITIAL_CREDIT_MESSAGES
from server.stdio.frames import MAX_BODY_BYTES, PROTOCOL_VERSION, FrameError, Raw


def own_hello(contract_version: str = "", instance_id: str = "", services: tuple[str, ...] = ()) -> FrameHello:
    """A hello with the limits of this implementation."""
    return FrameHello(
        protocol_version=PROTOCOL_VERSION,
        contract_version=contract_version,
        instance_id=instance_id,
        max_body_bytes=MAX_BODY_BYTES,
        initial_credit_messages=INITIAL_CREDIT_MESSAGES,
        services=services,
    )


def expect_hello(frame: Frame | Raw) -> FrameHello:
    """The hello in the other end's first frame. Raises `FrameError` for another frame or an unknown version."""
    if isinstance(frame, Raw) or not frame.HasField("hello"):
        raise FrameError("the first frame is not a hello")
    hello = frame.hello
    if hello.protocol_version != PROTOCOL_VERSION:
        raise FrameError(f"frame protocol {hello.protocol_version}; this end speaks {PROTOCOL_VERSION}")
    if hello.max_body_bytes < 0 or hello.initial_credit_messages < 0:
        raise FrameError("a hello with a limit below 0")
    return hello


def body_limit(hello: FrameHello) -> int:
    """The largest frame body that the end that sent `hello` accepts, in bytes."""
    return hello.max_body_bytes or MAX_BODY_BYTES
