"""Where work may run: what a request names, narrowed to the devices that can carry it out."""

import msgspec

from domains.device.devices import Devices
from domains.errors import ErrorReason, InvalidRequest, NotSupported, Violation
from domains.inference.generation import Generation
from domains.memory.pools.pool import HOST
from domains.memory.pools.reservations import Reservations
from domains.model.device_fit import lacked, told_fit
from domains.model.execution import Execution
from domains.model.loaded import LoadedModel
from domains.processing.jobs.job import JobOptions
from domains.processing.memory.care import device_of


class Places:
    """Narrows the devices of a job's options."""

    def __init__(self, devices: Devices, reservations: Reservations) -> None:
        self._devices = devices
        self._reservations = reservations

    def device_id(self, name: str) -> str:
        """The id of a device by id or alias. Raises DEVICE_NOT_FOUND. Empty stays empty."""
        return self._devices.get(name).device.id if name else ""

    def with_model(self, generation: Generation, loaded: LoadedModel, options: JobOptions) -> JobOptions:
        """The job's options, restricted to the device of the loaded model that the job names."""
        wrong = {
            "model_id": generation.model_id not in ("", loaded.model_id),
            "loaded_model_id": bool(options.device_ids)
            and loaded.device_id not in {self.device_id(name) for name in options.device_ids},
        }
        if any(wrong.values()):
            text = f"{loaded.id} is model {loaded.model_id} on device {loaded.device_id}; the request names another"
            told = [Violation(field=f"generation.{name}", message=text) for name, is_so in wrong.items() if is_so]
            raise InvalidRequest(told, ErrorReason.UNSUPPORTED_COMBINATION, loaded_model_id=loaded.id)
        return msgspec.structs.replace(options, device_ids=(loaded.device_id,))

    def computing(self, execution: Execution, options: JobOptions) -> JobOptions:
        """The job's options, restricted to the devices that have all precisions, the quantization and the attention kernel
        that it names, and the compiler if it needs one.

        Raises NOT_SUPPORTED_ON_DEVICE if there is none.
        """
        ways = execution.ways
        if not execution.named and not execution.quantizations and not ways.attention_kernel and not ways.compile:
            return options
        named = {self.device_id(name) for name in options.device_ids}
        devices = [view.device for view in self._devices.list() if not named or view.device.id in named]
        # A device whose worker is starting has not tried its precisions yet.
        untried = [device for device in devices if not device.precision_support]
        able = [device.id for device in devices if device in untried or not lacked(execution, device)]
        if not able:
            fits = "; ".join(told_fit(execution, device) for device in devices)
            named = {
                "precision": ", ".join(execution.named),
                "quantization": ", ".join(execution.quantizations),
                "attention_kernel": ways.attention_kernel,
                "compile": "true" if ways.compile else "",
            }
            message = f"no device computes as execution asks: {fits or 'there is none'}"
            raise NotSupported(message, None, **{name: value for name, value in named.items() if value})
        return options if len(able) == len(devices) else msgspec.structs.replace(options, device_ids=tuple(able))

    def reserved(self, options: JobOptions) -> JobOptions:
        """The job's options, restricted to the device of its reservation."""
        pool_id = self._reservations.find_held(options.reservation_id).pool_id
        device_id = device_of(pool_id)
        named = {self.device_id(name) for name in options.device_ids}
        if device_id is None or (named and device_id not in named):
            text = f"reservation {options.reservation_id} is of pool {pool_id}, and this job is not to run there"
            raise InvalidRequest([Violation(field="options.reservation_id", message=text)])
        return msgspec.structs.replace(options, device_ids=(device_id,))

    def check_to_host(self, options: JobOptions) -> None:
        """Raise INVALID_FIELD for a load into the RAM tier that names a device, or pays with another pool."""
        wrong: list[Violation] = []
        if options.device_ids:
            wrong.append(Violation(field="options.devices", message="must be empty: the RAM tier is of no device"))
        if options.reservation_id and (pool_id := self._reservations.find_held(options.reservation_id).pool_id) != HOST:
            text = f"reservation {options.reservation_id} is of pool {pool_id}, and the RAM tier lies in pool {HOST}"
            wrong.append(Violation(field="options.reservation_id", message=text))
        if wrong:
            raise InvalidRequest(wrong)
