"""The `Device` of a simulated device."""

import msgspec

from domains.device.device import Backend, Device, DeviceKind
from domains.device.simulated.script import SimDevice


def describe(sim_device: SimDevice, probed_cpu: Device) -> Device:
    """The scripted device, with the properties that were probed on the CPU that computes for it."""
    return msgspec.structs.replace(
        unprobed(sim_device),
        architecture=probed_cpu.architecture,
        compute_units=probed_cpu.compute_units,
        precision_support=probed_cpu.precision_support,
        quantizations=probed_cpu.quantizations,
        features=probed_cpu.features,
        allocation_alignment_bytes=probed_cpu.allocation_alignment_bytes,
        worker_pid=probed_cpu.worker_pid,
        libraries=probed_cpu.libraries,
        probe_time_s=probed_cpu.probe_time_s,
    )


def unprobed(sim_device: SimDevice) -> Device:
    """The scripted device before a worker has probed it."""
    return Device(
        id=sim_device.id,
        aliases=(f"sim:{sim_device.index}",),
        display_name=sim_device.name,
        kind=DeviceKind.SIMULATED,
        backend=Backend.SIMULATED,
        backend_index=sim_device.index,
        vendor="",
        total_memory_bytes=sim_device.memory_bytes,
        precision_support=(),
        driver_name="simulated",
    )
