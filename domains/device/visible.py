"""Applies CUDA_VISIBLE_DEVICES to NVML's list, as CUDA does: NVML ignores the variable."""

from collections.abc import Sequence

from domains.device.adapter import Adapter


def names_parts(setting: str | None) -> bool:
    """Whether the setting names parts of a GPU (MIG), which only CUDA can resolve."""
    return setting is not None and "MIG-" in setting.upper()


def visible(adapters: Sequence[Adapter], setting: str | None) -> tuple[Adapter, ...]:
    """The adapters that the setting makes visible; None: all.

    Numbers are NVML's, by PCI bus, as workers count; a UUID may be shortened. As in CUDA, the first word that names no GPU
    ends the list.
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
