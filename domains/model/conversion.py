"""What a conversion of a model asks for, and what it made."""

import msgspec

from domains.failure import Failure
from domains.model.model import Model, ModelLayout


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, and into what."""

    model_id: str
    precision: str = ""
    """Precision of the new weights, in torch's words. Empty: as they are."""
    layout: ModelLayout | None = None
    """DIFFUSERS or FILE. None: as it is."""
    destination: str
    """Absolute path of the new folder or file."""
    new_model_id: str = ""
    """Empty: the server makes one from the path."""
    keep: tuple[str, ...] = ()
    """Components whose precision stays as it is."""


class ConversionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The order to the process that converts."""

    model: Model
    layout: ModelLayout
    """Of the result: DIFFUSERS, COMPONENT or FILE."""
    precision: str = ""
    """Empty: as the weights are."""
    keep: tuple[str, ...] = ()
    part: str
    """Absolute path of the file or folder to write; there is nothing yet."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What the process has written."""

    converted: int
    """Tensors that have another precision than before."""
    copied: int
    max_absolute_error: float | None = None
    """Largest change of a finite weight. None: no weight was converted."""
    clamped: int = 0
    """Finite weights beyond the range of the new precision."""
    written_bytes: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """Progress of the process."""

    written: int
    """Bytes."""
    total: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The last message of the process. Exactly one of its fields is set."""

    written: Written | None = None
    failure: Failure | None = None


class ConversionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion has made."""

    model: Model
    """The new model, registered."""
    source_model_id: str
    written: Written
    duration_s: float
