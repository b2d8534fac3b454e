"""DeviceService: the devices there are, as far as it is built."""

from typing import Any

import grpc

from deviceops.device.v1 import device_pb2, device_service_pb2
from domains.device.devices import Devices, DeviceView
from server import convert

Context = grpc.aio.ServicerContext[Any, Any]


class DeviceServicer:
    """What the workers told of their devices."""

    def __init__(self, devices: Devices, jobs_per_device: int) -> None:
        self._devices = devices
        self._jobs_per_device = jobs_per_device

    async def ListDevices(
        self, request: device_service_pb2.ListDevicesRequest, context: Context
    ) -> device_service_pb2.ListDevicesResponse:
        """All devices that the filter lets through."""
        devices = [to_device(view, self._jobs_per_device) for view in self._devices.list()]
        chosen = [device for device in devices if _accepts(request.filter, device)]
        return device_service_pb2.ListDevicesResponse(devices=chosen)

    async def GetDevice(
        self, request: device_service_pb2.GetDeviceRequest, context: Context
    ) -> device_service_pb2.GetDeviceResponse:
        """One device by id or alias."""
        view = self._devices.get(request.device_id)
        return device_service_pb2.GetDeviceResponse(device=to_device(view, self._jobs_per_device))


def _accepts(wanted: device_pb2.DeviceFilter, device: device_pb2.Device) -> bool:
    return (
        (not wanted.kinds or device.kind in wanted.kinds)
        and (not wanted.backends or device.backend in wanted.backends)
        and (not wanted.states or device.state in wanted.states)
    )


def to_device(view: DeviceView, jobs_per_device: int) -> device_pb2.Device:
    """A device as the contract tells it; what was not measured stays absent."""
    device = view.device
    return device_pb2.Device(
        id=device.id,
        aliases=device.aliases,
        display_name=device.display_name,
        kind=device_pb2.DeviceKind.Value(f"DEVICE_KIND_{device.kind.name}"),
        backend=device_pb2.DeviceBackend.Value(f"DEVICE_BACKEND_{device.backend.name}"),
        state=device_pb2.DeviceState.Value(f"DEVICE_STATE_{view.state.name}"),
        identity=device_pb2.DeviceIdentity(
            vendor=device.vendor,
            pci_bus_id=device.pci_bus_id,
            vendor_uuid=device.uuid,
            backend_index=device.backend_index,
        ),
        driver=device_pb2.DeviceDriver(version=device.driver_version, runtime=device.runtime_version, supported=True),
        capabilities=device_pb2.DeviceCapabilities(
            total_memory_bytes=device.total_memory_bytes,
            compute_capability=device.compute_capability,
            compute_units=device.compute_units,
            precisions=[
                device_pb2.PrecisionSupport(
                    precision=convert.to_precision(tried.precision), supported=tried.supported, detail=tried.detail
                )
                for tried in device.precision_support
            ],
            tasks=["text_to_image"],
            max_concurrent_jobs=jobs_per_device,
        ),
        settings=device_pb2.DeviceSettings(enabled=True, max_concurrent_jobs=jobs_per_device),
        etag=view.etag,
    )
