"""Which GPUs are ours: CUDA_VISIBLE_DEVICES as CUDA reads it, for NVML, which does not."""

from collections.abc import Sequence

from domains.device.adapter import Adapter


def names_parts(setting: str | None) -> bool:
    """Whether it names parts of a GPU (MIG): CUDA alone knows which those are."""
    return setting is not None and "MIG-" in setting.upper()


def visible(adapters: Sequence[Adapter], setting: str | None) -> tuple[Adapter, ...]:
    """Those that the setting leaves to us; None: all.

    Numbers are NVML's, by PCI bus, as workers count too; a UUID may be cut short. CUDA stops at the first word that
    names no GPU, and so does this.
    """
    if setting is None or names_parts(setting):
        return tuple(adapters)
    chosen: list[Adapter] = []
    for word in setting.split(","):
        named = [one for one in adapters if _names(word.strip(), one)]
        if len(named) != 1:
            break
        chosen += named
    return tuple(one for one in adapters if one in chosen)


def _names(word: str, adapter: Adapter) -> bool:
    if word.isdecimal():
        return int(word) == adapter.index
    return word.upper().startswith("GPU-") and adapter.uuid.lower().startswith(word.lower())
