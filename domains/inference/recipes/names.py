"""Names of samplers and noise schedules in other programs."""

from collections.abc import Mapping

from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES

_OF_A1111 = {entry.display_name.casefold(): entry.id for entry in SAMPLERS.values()}
_SCHEDULES_OF_A1111 = {name.casefold(): schedule for schedule, name in SIGMA_SCHEDULES.items()}
_OTHERS: Mapping[str, str] = {
    "euler_ancestral": "euler_a",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "uni_pc": "unipc",
    "kdpm_2": "dpm2",
    "kdpm_2_a": "dpm2_a",
    "dpmpp_2s": "dpmpp_2s_a",
}
"""ComfyUI's and InvokeAI's, where they are not our ids."""


def of_a1111(sampler: str, schedule: str) -> tuple[str, str]:
    """The ids of a sampler and a schedule. Older texts have both in one: `DPM++ 2M Karras`. Empty: unknown."""
    name = sampler.casefold()
    for ending, found in _SCHEDULES_OF_A1111.items():
        if name not in _OF_A1111 and name.endswith(f" {ending}"):
            return _OF_A1111.get(name.removesuffix(f" {ending}"), ""), found
    return _OF_A1111.get(name, ""), _SCHEDULES_OF_A1111.get(schedule.casefold(), "")


def of_others(sampler: str, schedule: str = "") -> tuple[str, str]:
    """The same of ComfyUI and InvokeAI, which writes `dpmpp_2m_k` for Karras' levels."""
    bare, karras = sampler.removesuffix("_k"), sampler.endswith("_k")
    known = _OTHERS.get(bare, bare)
    return known if known in SAMPLERS else "", "karras" if karras else schedule if schedule in SIGMA_SCHEDULES else ""
