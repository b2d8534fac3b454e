"""A picture through gRPC, from the call to the PNG's bytes in hand, against diffusers in process with Pillow's PNG.

Same model, prompt, seed, steps and guidance on both sides; the pictures are compared in the same run. 1.00 means that the
server, the worker process, the journal on disk and the transport together cost nothing.

A worker that computes on the CPU gives way to other programs (`BEHIND_THE_FRONT`), and so does diffusers here: else each of
them would slow down the server alone. The CPU seconds of both sides hold on a busy machine too.
"""

import io
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

import domains.model
from bench.measure import interleave, ratio, result, spread
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from server.worker.process import BEHIND_THE_FRONT
from tests.server.harness import RunningServer, running_server

MODEL = Path(domains.model.__file__).parent / "embedded" / "emoji-sd"
PROMPT, SEED, STEPS, GUIDANCE = "a red apple", 7, 20, 5.0
ROUNDS = 8
PIXEL_TOLERANCE = 2
"""Of 255: both sides round the same decoded picture, whose float values differ in the last places."""


def through_server(server: RunningServer) -> bytes:
    """One picture as a client gets it."""
    sampling = sampling_pb2.Sampling(seed=SEED, steps=STEPS, guidance_scale=GUIDANCE)
    generation = generation_pb2.Generation(prompt=PROMPT, sampling=sampling)
    responses = list(server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)))
    blob = responses[-1].result.images[0].file.blob_id
    chunks = server.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id=blob))
    return b"".join(chunk.data for chunk in chunks)


class InProcess:
    """diffusers as its documentation shows it."""

    def __init__(self) -> None:
        import torch
        from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # its lazy export

        self._torch = torch
        self._pipe = StableDiffusionPipeline.from_pretrained(str(MODEL), dtype=torch.float32)
        self._pipe.set_progress_bar_config(disable=True)

    def picture(self) -> bytes:
        """One picture as PNG."""
        generator = self._torch.Generator().manual_seed(SEED)
        image = self._pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator)[0][0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def difference(left: bytes, right: bytes) -> int:
    """Largest difference of a channel, 0..255."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (left, right))
    return int(np.abs(a - b).max())


def cpu_seconds() -> float:
    """CPU seconds that this process and all of its children have used."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def cpu_of(run: Callable[[], object]) -> float:
    """CPU seconds of a run, of all processes."""
    before = cpu_seconds()
    run()
    return cpu_seconds() - before


def main() -> int:
    """Print the ratio ours / theirs; lower is better."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with running_server("--device", "cpu") as server:
        os.nice(BEHIND_THE_FRONT)
        peer = InProcess()
        worst = difference(through_server(server), peer.picture())
        samples = interleave({"server": lambda: through_server(server), "diffusers": peer.picture}, ROUNDS)
        cpu = {"server": cpu_of(lambda: through_server(server)), "diffusers": cpu_of(peer.picture)}
    return result(
        "serve_overhead",
        ratio(samples["server"], samples["diffusers"]),
        target=0.85,
        better="lower",
        peer=f"diffusers {version('diffusers')} in process + Pillow {version('pillow')} PNG",
        conditions={"pictures equal": worst <= PIXEL_TOLERANCE},
        details={
            "largest pixel difference": worst,
            "server seconds": spread(samples["server"]),
            "diffusers seconds": spread(samples["diffusers"]),
            "CPU seconds of one picture": cpu,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
