"""A graphics adapter as its driver lists it, without a worker, a context or torch."""

import msgspec


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter. Fields that the driver does not report are empty or absent."""

    uuid: str
    """Assigned by the vendor: `GPU-1a2b3c4d-…`."""
    name: str
    index: int
    """Position in the driver's list, by PCI bus; CUDA may count otherwise."""
    pci_bus_id: str = ""
    """`0000:65:00.0`."""
    pci_vendor_id: int | None = None
    pci_device_id: int | None = None
    architecture: str = ""
    """`hopper`."""
    driver_version: str = ""
    firmware_version: str = ""
    """Version of the VBIOS."""
    total_memory_bytes: int | None = None
    max_clock_mhz: int | None = None
    """Maximum clock of the compute units."""

    @property
    def device_id(self) -> str:
        """Device id from the UUID: `gpu-` and the first eight hex digits, which are random."""
        return f"gpu-{bare_uuid(self.uuid)[:8]}"


def bare_uuid(uuid: str) -> str:
    """The UUID in lower case without the driver's prefix (`GPU-`, `MIG-`): drivers and runtimes write it differently."""
    head, _, rest = uuid.partition("-")
    return (rest if head.upper() in ("GPU", "MIG") else uuid).lower()


def pci_address(text: str) -> str:
    """The PCI address in lower case, with a domain of four digits if it fits: `00000000:65:00.0` gives `0000:65:00.0`."""
    domain, colon, rest = text.strip().lower().partition(":")
    return f"{domain.lstrip('0'):0>4}{colon}{rest}" if colon else text
