"""What all runs on one device share, and how many bytes it holds."""

from concurrent.futures import Executor
from dataclasses import dataclass

import torch

from domains.device.cgroup import host_memory
from domains.inference.on_device.adapters import AdapterPool
from domains.inference.on_device.families.family import KeepOn
from domains.inference.on_device.hardware import Hardware
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.resident_models import ResidentModels
from domains.model.execution import Execution, by_layer, in_turns
from domains.threads import ThreadPool


@dataclass(frozen=True)
class Resources:
    """The device, what is on it beside the tensors of runs, and what is kept for it in host memory."""

    device: torch.device
    device_id: str
    """The server's name of the device."""
    hardware: Hardware
    models: ResidentModels
    prompts: PromptCache
    adapters: AdapterPool
    networks: NetworkPool
    """What jobs use beside their models: ControlNets, T2I adapters, IP-Adapters and their image encoders."""
    files: Executor
    """Encodes files beside the loop."""

    def hold_prompts(self) -> None:
        """Tell the hardware how many bytes the cached prompt encodings take."""
        self.hardware.hold("prompts", self.prompts.held_bytes())

    def forget_prompts(self) -> None:
        """Drop all cached prompt encodings."""
        self.prompts.clear()
        self.hold_prompts()

    def forget_host_copies(self) -> None:
        """Drop what is kept in host memory: models that have left the device, and adapters."""
        self.adapters.clear()
        if self.models.tier is not None:
            self.models.tier.clear()

    def unload(self, model_id: str) -> int:
        """Drop a model that no run uses; returns the bytes freed. Raises LOADED_MODEL_NOT_FOUND."""
        self.prompts.forget(model_id)
        self.hold_prompts()
        return self.reload(model_id)

    def offloaded(self, execution: Execution, held_bytes: int | None = None) -> Execution:
        """The next way to load a model with more of it in host memory, if so much memory is free as now. `held_bytes`: see
        `by_layer`."""
        if not execution.in_turns:
            return in_turns(execution)
        return by_layer(execution, self._free_bytes(), held_bytes)

    def _free_bytes(self) -> int:
        if (room := self.hardware.room()) is not None:
            return room
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        host = host_memory()
        return max(0, host.total_bytes - host.used_bytes)

    def reload(self, model_id: str) -> int:
        """Drop a model that is loaded again at once, with the same weights in the same precision; returns the bytes freed.
        Its encoded prompts stay. Raises LOADED_MODEL_NOT_FOUND."""
        freed = self.models.unload(model_id)
        self.adapters.keep_models(self.models.contents())
        return freed

    def pinned_bytes(self) -> int:
        """Bytes of host memory that models which have left the device pin."""
        return 0 if self.models.tier is None else self.models.tier.pinned_bytes

    def model_bytes(self) -> dict[str, int]:
        """Bytes of each loaded model, by id."""
        return self.models.sizes()

    def control_bytes(self) -> dict[str, int]:
        """Bytes of the networks that guide running jobs, by model id. Each leaves with its last job."""
        return self.networks.sizes()

    def adapter_bytes(self) -> int:
        """Bytes of host memory that the files of adapters take."""
        return self.adapters.held_bytes()

    def prompt_bytes(self) -> int:
        """Bytes of the cached prompt encodings."""
        return self.prompts.held_bytes()

    def shared_bytes(self) -> int:
        """Bytes that are held for runs that share forwards, beside their own."""
        return self.models.shared_bytes()


def resources_of(device: torch.device, device_id: str, hardware: Hardware, encoders: int, keep_on: KeepOn) -> Resources:
    """Empty resources. `encoders`: number of threads that encode files. `keep_on`: see `InTurns`."""
    return Resources(
        device=device,
        device_id=device_id,
        hardware=hardware,
        models=ResidentModels(device, hardware, keep_on=keep_on),
        prompts=PromptCache(),
        adapters=AdapterPool(),
        networks=NetworkPool(hardware),
        files=ThreadPool(encoders, thread_name_prefix="encode"),
    )
