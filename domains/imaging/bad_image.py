"""The error for a file that is not a usable image."""

from domains.errors import ErrorReason, InvalidRequest, Violation


def bad_image(problem: str, **facts: object) -> InvalidRequest:
    """`problem` continues the words "the image …"; its path in the request is `decode`'s business."""
    return InvalidRequest([Violation(field="image", message=f"the image {problem}")], ErrorReason.BAD_IMAGE, **facts)
