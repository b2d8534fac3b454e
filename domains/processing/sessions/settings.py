"""The rules for a session's settings, and which of them a call changes."""

import math
from collections.abc import Iterator, Sequence

import msgspec

from domains.errors import Aborted, InvalidRequest, Violation, excerpt
from domains.labels import label_violations
from domains.processing.sessions.session import Session, SessionLimits, SessionSettings

MAX_NAME = 255
MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0
_LONGEST_S = 10 * 365 * 86400
CHANGEABLE = {
    "display_name": "display_name",
    "weight": "weight",
    "limits": "limits",
    "labels": "labels",
    "idle_timeout": "idle_timeout_s",
}
"""By path of an update mask: the field of `SessionSettings`."""


def check_settings(settings: SessionSettings, mask: Sequence[str] = tuple(CHANGEABLE)) -> None:
    """Raise INVALID_FIELD with all violations of the fields that the mask names."""
    wrong = [each for each in _violations(settings) if each.field.split(".")[1] in mask]
    if wrong:
        raise InvalidRequest(wrong)


def _violations(settings: SessionSettings) -> Iterator[Violation]:
    if len(settings.display_name) > MAX_NAME:
        text = f"has {len(settings.display_name)} characters; at most {MAX_NAME}"
        yield Violation(field="settings.display_name", message=text, allowed=f"0..{MAX_NAME} characters")
    weight = settings.weight
    if weight is not None and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        allowed = f"{MIN_WEIGHT:g}..{MAX_WEIGHT:g}"
        yield Violation(field="settings.weight", message=f"{weight:g} is not within {allowed}", allowed=allowed)
    limits = settings.limits or SessionLimits()
    for name in SessionLimits.__struct_fields__:
        if (value := getattr(limits, name)) < 0:
            yield Violation(field=f"settings.limits.{name}", message=f"{value} is negative", allowed="0..")
    yield from label_violations(settings.labels, "settings.labels")
    if settings.idle_timeout_s is not None and not 0 < (settings.idle_timeout_s or math.nan) < _LONGEST_S:
        yield Violation(field="settings.idle_timeout", message="is not a positive time below ten years")


def changed(session: Session, settings: SessionSettings, mask: Sequence[str], etag: str = "") -> SessionSettings:
    """The session's settings with those of the mask. Raises INVALID_FIELD or ETAG_MISMATCH."""
    unknown = [path for path in mask if path not in CHANGEABLE]
    if unknown or not mask:
        allowed = ", ".join(CHANGEABLE)
        text = f"{excerpt(unknown[0])!r} cannot be changed" if unknown else "names nothing to change"
        violation = Violation(field="update_mask", message=f"{text}; changeable: {allowed}", allowed=allowed)
        raise InvalidRequest([violation])
    check_settings(settings, mask)
    if etag and etag != session.etag:
        message = f"session {session.id} has changed since its etag was read; read it again"
        raise Aborted(message, session_id=session.id)
    fields = {CHANGEABLE[path]: getattr(settings, CHANGEABLE[path]) for path in mask}
    return msgspec.structs.replace(session.settings, **fields)
