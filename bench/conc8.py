"""Eight clients at once, with their own seeds, steps and samplers, through gRPC, against diffusers one after the other."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two pools of threads that spin would measure each other

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from bench.crowd import AT_ONCE, PIXEL_TOLERANCE, Diffusers, crowd, difference, folder, tiny_model
from bench.measure import interleave, ratio, result, spread
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.model.v1 import model_service_pb2
from domains.inference.generation import ResolvedGeneration
from tests.server.harness import RunningServer, running_server

ROUNDS = 5
TARGET = 4.0


class Clients:
    """Each follows one picture from the call to the PNG's bytes in hand."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self.files: list[bytes] = []

    def make(self, asked: Sequence[ResolvedGeneration]) -> None:
        """All pictures at once."""
        self.files = list(self._threads.map(self._picture, asked))

    def _picture(self, one: ResolvedGeneration) -> bytes:
        generation = generation_pb2.Generation(
            prompt=one.prompt,
            model_id=one.model_id,
            width_px=one.width_px,
            height_px=one.height_px,
            sampling=sampling_pb2.Sampling(
                seed=one.seeds[0], steps=one.steps, guidance_scale=one.guidance_scale, sampler=one.sampler
            ),
        )
        responses = list(self._server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)))
        blob = responses[-1].result.images[0].file.blob_id
        chunks = self._server.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id=blob))
        return b"".join(chunk.data for chunk in chunks)


def main() -> int:
    """Print how many times faster ours is."""
    with folder() as place:
        model = tiny_model(Path(place))
        flags = ("--device", "cpu", "--jobs-per-device", str(AT_ONCE), "--model-root", place)
        with running_server(*flags) as server:
            list(server.model.ScanModels(model_service_pb2.ScanModelsRequest()))
            ours, theirs = Clients(server), Diffusers(model)
            asked = crowd(model, width_px=128, height_px=128)
            ours.make(asked)
            theirs.make(asked)
            worst = max(difference(*pair) for pair in zip(ours.files, theirs.files, strict=True))
            samples = interleave({"clients": lambda: ours.make(asked), "diffusers": lambda: theirs.make(asked)}, ROUNDS)
    return result(
        "conc8",
        ratio(samples["diffusers"], samples["clients"]),
        target=TARGET,
        peer=f"diffusers {version('diffusers')} in process + Pillow {version('pillow')} PNG, one after the other",
        conditions={"pictures equal": worst <= PIXEL_TOLERANCE},
        details={
            "largest pixel difference": worst,
            "seconds of 8 clients": spread(samples["clients"]),
            "diffusers seconds": spread(samples["diffusers"]),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
