"""The ways to make a control map from an ordinary picture: what each reads, and why some are not available.

Names are those of the contract's ControlPreprocessing. `domains.imaging.control_maps` computes those that are available.
"""

from collections.abc import Mapping

import msgspec


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a preprocessor reads."""

    bounds: tuple[float, float]
    default: float
    unit: str = ""
    whole: bool = True
    """Whether it is a whole number."""


class Preprocessor(msgspec.Struct, frozen=True, kw_only=True):
    """One way."""

    display_name: str
    options: Mapping[str, Option] = {}
    lacks: str = ""
    """What it needs that this server has not. Empty: it is available."""


def _by_model(name: str, model: str) -> Preprocessor:
    lacks = f"needs a model that estimates it, such as {model}, and this server runs none yet; give the map itself"
    return Preprocessor(display_name=name, lacks=lacks)


INPAINT = "inpaint"
"""The picture with the generation's masked part marked as missing."""
_THRESHOLDS = (0.0, 255.0)

PREPROCESSORS: Mapping[str, Preprocessor] = {
    "canny": Preprocessor(
        display_name="Canny edges",
        options={
            "low_threshold": Option(bounds=_THRESHOLDS, default=100.0),
            "high_threshold": Option(bounds=_THRESHOLDS, default=200.0),
        },
    ),
    "depth": _by_model("Depth", "Depth Anything V2 or MiDaS"),
    "pose": _by_model("Pose", "DWPose or OpenPose"),
    "scribble": Preprocessor(
        display_name="Scribble",
        options={"coarseness_px": Option(bounds=(0.5, 10.0), default=2.0, unit="px", whole=False)},
    ),
    "soft_edge": _by_model("Soft edges", "HED or PiDiNet"),
    "line_art": Preprocessor(display_name="Line art"),
    "normal": _by_model("Surface normals", "NormalBae or Marigold"),
    "segmentation": _by_model("Segmentation", "OneFormer or UperNet"),
    "line_segments": Preprocessor(
        display_name="Line segments", options={"min_length_px": Option(bounds=(1.0, 1024.0), default=16.0, unit="px")}
    ),
    "tile": Preprocessor(
        display_name="Tile", options={"downscale": Option(bounds=(1.0, 8.0), default=1.0, whole=False)}
    ),
    INPAINT: Preprocessor(display_name="Inpaint"),
    "shuffle": Preprocessor(
        display_name="Shuffle", options={"seed": Option(bounds=(0.0, float(2**32 - 1)), default=0.0)}
    ),
}
"""By name, in the order of the contract."""

AVAILABLE = tuple(name for name, one in PREPROCESSORS.items() if not one.lacks)

CONTROL_TYPES = tuple(PREPROCESSORS)
"""What ControlNets are trained for."""
