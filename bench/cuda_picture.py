"""On a machine with a CUDA device: the whole path there, and its speed against diffusers' own pipeline on the same device.

Checks that the server finds the device, makes the picture, cancels, and comes back after its worker was killed in mid-job.
`--out FOLDER` keeps the picture. Not part of the CPU set.
"""

import contextlib
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import grpc

from bench.measure import interleave, ratio, result, spread
from bench.serve_overhead import GUIDANCE, MODEL, PROMPT, SEED, STEPS, difference, through_server
from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server.harness import RunningServer, running_server

ROUNDS = 20


class OnCuda:
    """diffusers on the device, in the precision that the server chose."""

    def __init__(self) -> None:
        import torch
        from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # its lazy export

        self._torch = torch
        pipe = StableDiffusionPipeline.from_pretrained(str(MODEL), dtype=torch.bfloat16)
        self._pipe = pipe.to("cuda")
        self._pipe.set_progress_bar_config(disable=True)

    def picture(self) -> bytes:
        """One picture as PNG, with the noise that the server draws."""
        import io

        generator = self._torch.Generator().manual_seed(SEED)
        made = self._pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator)
        file = io.BytesIO()
        made[0][0].save(file, "PNG")
        return file.getvalue()


def cuda_device(server: RunningServer, limit_s: float = 120) -> device_pb2.Device:
    """The device, once its worker has described it."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with contextlib.suppress(grpc.RpcError):  # STARTING
            for device in server.device.ListDevices(device_service_pb2.ListDevicesRequest()).devices:
                if device.state == device_pb2.DEVICE_STATE_AVAILABLE:
                    return device
        time.sleep(0.2)
    raise AssertionError(f"no CUDA device came up:\n{server.log.read_text()[-4000:]}")


def survives_a_kill(server: RunningServer) -> dict[str, object]:
    """Kill the worker in mid-denoise; the job runs again and ends well."""
    sampling = sampling_pb2.Sampling(seed=SEED, steps=200)
    generation = generation_pb2.Generation(prompt=PROMPT, sampling=sampling)
    kinds: list[str] = []
    killed_s = 0.0
    for response in server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)):
        kind = str(response.event.WhichOneof("kind"))
        kinds.append(kind)
        if kind == "progress" and response.event.progress.stage == "denoising" and not killed_s:
            killed_s = time.monotonic()
            os.kill(server.worker_pid, signal.SIGKILL)
        if kind == "started" and killed_s:
            killed_s = time.monotonic() - killed_s
    durable = [kind for kind in kinds if kind not in ("progress", "preview", "heartbeat")]
    return {"events": durable, "again running after s": killed_s, "survived": kinds[-1] == "succeeded"}


def cancels(server: RunningServer) -> float:
    """Seconds between the request and the proof."""
    generation = generation_pb2.Generation(prompt=PROMPT, sampling=sampling_pb2.Sampling(steps=500))
    for response in server.inference.Generate(inference_service_pb2.GenerateRequest(generation=generation)):
        event = response.event
        if event.progress.stage == "denoising" and event.progress.completed:
            server.processing.CancelJob(processing_service_pb2.CancelJobRequest(job_id=event.job_id))
        if event.HasField("cancelled"):
            return event.cancelled.latency.ToNanoseconds() / 1e9
    raise AssertionError("not cancelled")


def main() -> int:
    """Print the ratio ours / theirs; lower is better."""
    out = Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
    with running_server("--device", "auto") as server:
        device = cuda_device(server)
        ours = through_server(server)
        cancelled_s, kill = cancels(server), survives_a_kill(server)
        peer = OnCuda()
        worst = difference(ours, peer.picture())
        samples = interleave({"server": lambda: through_server(server), "diffusers": peer.picture}, ROUNDS)
        if out is not None:
            (out / "cuda.png").write_bytes(ours)
            (out / "server.log").write_text(server.log.read_text())
    return result(
        "cuda_picture",
        ratio(samples["server"], samples["diffusers"]),
        target=1.0,
        better="lower",
        peer=f"diffusers {version('diffusers')} on the same device, bfloat16",
        conditions={"survived its worker's death": bool(kill["survived"])},
        details={
            "device": f"{device.id} {device.display_name} {device.identity.pci_bus_id}",
            "device bytes": device.capabilities.total_memory_bytes,
            "driver": f"{device.driver.version} CUDA {device.driver.runtime}",
            "precisions": [p.precision for p in device.capabilities.precisions if p.supported],
            "server seconds": spread(samples["server"]),
            "diffusers seconds": spread(samples["diffusers"]),
            "largest pixel difference": worst,
            "cancel seconds": cancelled_s,
            "kill": kill,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
