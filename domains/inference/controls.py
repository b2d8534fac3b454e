"""Pictures that guide the layout beside the prompt: as requested, and with every choice made."""

import math
from enum import StrEnum

import msgspec

from domains.inference.image_fit import ImageFit

_ROUNDING = 1e-6


class ControlBalance(StrEnum):
    """The side that wins where prompt and control map disagree."""

    EVEN = "even"
    """Both count as weighted."""
    PROMPT = "prompt"
    """Early layers of the control count less: 0.1 at the first one, 1 at the last one."""
    CONTROL = "control"
    """The same, and the row without the prompt sees no control, so that guidance amplifies it. diffusers: guess mode."""


class PictureSource(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of a request."""

    blob_id: str = ""
    """The blob with the encoded file."""
    data: bytes = b""
    """The encoded file, until it is stored as a blob. Stored requests name the blob."""

    @property
    def given(self) -> bool:
        """Whether there is a picture."""
        return bool(self.blob_id or self.data)


class UsedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that a resolved generation uses."""

    blob_id: str
    sha256: str
    """Hash of the encoded file: a replay detects another one."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """How a control map is made from an ordinary picture."""

    kind: str
    """A key of `domains.inference.preprocessors.PREPROCESSORS`: `canny`, `tile` …"""
    model_id: str = ""
    """The model that makes it. Empty: the server's default, or none is needed."""
    options: tuple[tuple[str, float], ...] = ()
    """Values by the contract's field name."""

    def option(self, name: str, otherwise: float) -> float:
        """A value, or its default."""
        return dict(self.options).get(name, otherwise)


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A ControlNet or T2I adapter with its picture, as requested."""

    model_id: str
    image: PictureSource = PictureSource()
    preprocessing: Preprocessing | None = None
    """Absent: the picture is the map."""
    weight: float | None = None
    """0..10; 0: no effect. Absent: 1."""
    start_ratio: float | None = None
    """Share of the steps after which it begins to guide. Absent: 0."""
    end_ratio: float | None = None
    """Share of the steps after which it stops, more than the start. Absent: 1."""
    balance: ControlBalance = ControlBalance.EVEN
    control_type: str = ""
    """What the map is, for a ControlNet that knows several types. Empty: its only one."""
    fit: ImageFit | None = None
    """Absent: the picture must have the size of the result."""
    region: PictureSource | None = None
    """Where it guides: white. Absent: everywhere."""


class ResolvedControl(msgspec.Struct, frozen=True, kw_only=True):
    """A control with every choice made."""

    model_id: str
    model_sha256: str
    """Hash of its weights: a replay detects another one with the same id."""
    image: UsedPicture
    fit: ImageFit
    preprocessing: Preprocessing | None = None
    weight: float = 1.0
    start_ratio: float = 0.0
    end_ratio: float = 1.0
    balance: ControlBalance = ControlBalance.EVEN
    control_type: str = ""
    """One of `TOLD`. Empty: the ControlNet knows one type."""
    region: UsedPicture | None = None
    t2i_adapter: bool = False
    """Whether it is a T2I adapter, which reads the map once, and no prompt. Else it is a ControlNet."""

    def steps_of(self, count: int) -> range:
        """The steps (from 0, of `count`) in which it counts: those that lie within its range, as in diffusers."""
        begin = math.ceil(count * self.start_ratio - _ROUNDING)
        return range(begin, math.floor(count * self.end_ratio + _ROUNDING))
