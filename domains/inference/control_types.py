"""The types of maps that a ControlNet trained for several of them (union) is told, with their numbers."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from domains.inference.controls import ResolvedControl
from domains.inference.preprocessors import CONTROL_TYPES, INPAINT
from domains.model.families import CONTROLLED, FAMILIES

CONTROL_MODES: Mapping[str, Mapping[str, int]] = {
    # xinsir, controlnet-union-sdxl-1.0; the last two of its ProMax alone.
    "sdxl": {
        **{"pose": 0, "depth": 1, "soft_edge": 2, "scribble": 2, "canny": 3, "line_art": 3, "line_segments": 3},
        **{"normal": 4, "segmentation": 5, "tile": 6, "inpaint": 7},
    },
    # InstantX and Shakker Labs, FLUX.1-dev-ControlNet-Union and -Pro.
    "flux1": {"canny": 0, "tile": 1, "depth": 2, "blur": 3, "pose": 4, "grey": 5, "low_quality": 6},
}
"""By family: `control_mode` of diffusers."""

TOLD = tuple(dict.fromkeys(name for names in CONTROL_MODES.values() for name in names))
"""All types that some network is told."""


def forwards_of(controls: Sequence[ResolvedControl], family_id: str) -> Sequence[Sequence[int]]:
    """The places of ControlNets of a job, from 0, each group of which is computed in one forward.

    Maps of one union network are read together if they count in the same steps with the same balance and everywhere; a map
    and a picture with a missing part if they have the same weight, too.
    """
    family, groups = FAMILIES[family_id], dict[Hashable, list[int]]()
    earlier: Counter[Hashable] = Counter()
    for place, one in enumerate(controls):
        alike = one.model_id, one.model_sha256, one.start_ratio, one.end_ratio, one.balance
        key: Hashable = place
        if one.region is None and family.completes_maps:
            # The first map goes with the first picture, the second map with the second picture.
            sort = *alike, one.weight, marks_missing(one)
            key = *alike, one.weight, earlier[sort]
            earlier[sort] += 1
        elif one.region is None and family.joins_maps and one.control_type:
            key = alike
        groups.setdefault(key, []).append(place)
    return [*groups.values()]


def marks_missing(control: ResolvedControl) -> bool:
    """Whether its map is the picture with the masked part marked as missing."""
    return control.preprocessing is not None and control.preprocessing.kind == INPAINT


def control_types_of(family_id: str) -> tuple[str, ...]:
    """The types of maps that ControlNets of a family are trained for. Empty: it has none here."""
    if family_id not in CONTROLLED:
        return ()
    return tuple(dict.fromkeys((*CONTROL_MODES.get(family_id, ()), *CONTROL_TYPES)))
