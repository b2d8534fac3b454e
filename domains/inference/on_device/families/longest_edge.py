"""Refuses pictures for which a transformer has no positions."""

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.on_device.families.family import SizePx


def refuse_longer(size_px: SizePx, most_px: int) -> None:
    """Raise UNSUPPORTED_COMBINATION for edges beyond the model's table of positions."""
    violations = [
        Violation(
            field=f"generation.{name}",
            message=f"{edge} is above {most_px}, the longest edge for which this model has positions",
            allowed=f"at most {most_px}",
        )
        for name, edge in zip(("width_px", "height_px"), size_px, strict=True)
        if edge > most_px
    ]
    if violations:
        raise InvalidRequest(violations, ErrorReason.UNSUPPORTED_COMBINATION)
