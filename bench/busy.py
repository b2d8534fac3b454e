"""A server that is at work while something else about it is measured."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import grpc

from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from tests.server.harness import RunningServer

_STEPS, _PREVIEW_EVERY = 200, 10


@contextmanager
def generating(server: RunningServer) -> Generator[None]:
    """One picture after the other, with previews, each followed to its end by a reader. Entered once the first one moves."""
    moving, stop = threading.Event(), threading.Event()
    begun = threading.Thread(target=_generate, args=(server.address, moving, stop))
    begun.start()
    try:
        assert moving.wait(120), "no generation has begun"
        yield
    finally:
        stop.set()
        begun.join()


def _generate(address: str, moving: threading.Event, stop: threading.Event) -> None:
    request = inference_service_pb2.GenerateRequest(
        generation=generation_pb2.Generation(
            prompt="a red apple",
            sampling=sampling_pb2.Sampling(steps=_STEPS),
            previews=generation_pb2.PreviewOptions(every_steps=_PREVIEW_EVERY),
        )
    )
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
        inference = InferenceServiceStub(channel)
        while not stop.is_set():
            call = inference.Generate(request)
            for response in call:
                if response.event.HasField("progress"):
                    moving.set()
                if stop.is_set():
                    call.cancel()
                    break
