"""The value of a registration, and the checks that need no look at the file."""

import re

import msgspec

from domains.errors import InvalidRequest, Violation
from domains.labels import label_violations
from domains.memory.blobs.blob import MappedFile, SharedMemorySegment
from domains.memory.blobs.creation import is_sha256

_ID = re.compile(r"(?!b-)[a-z0-9_.-]{1,63}")
_SECTION = re.compile(r"(?:(?:Local|Global)\\)?deviceops-[^\\\0]{1,200}")
"""Names of shared memory that may be opened. The prefix excludes sections of other programs, which the server could read."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """A request to map a file or shared memory."""

    backing: MappedFile | SharedMemorySegment
    blob_id: str = ""
    """Empty: the server chooses the id."""
    size_bytes: int | None = None
    """None: up to the end of the file."""
    media_type: str = ""
    sha256: str = ""
    generation: int = 0
    """0: the present generation, or the next one if the content differs."""
    verify: bool = True
    """Hash the content at registration."""
    keep_for_s: float | None = None
    """None: until deleted."""
    session_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def check_registration(asked: Registration) -> None:
    """INVALID_FIELD with all violations."""
    wrong: list[Violation] = []

    def refuse(field: str, message: str, allowed: str = "") -> None:
        wrong.append(Violation(field=field, message=message, allowed=allowed))

    if asked.blob_id and not _ID.fullmatch(asked.blob_id):
        refuse("blob_id", "is not 1..63 characters of a-z 0-9 - _ . that do not begin with b-")
    kind = "file" if isinstance(asked.backing, MappedFile) else "shared_memory"
    if isinstance(asked.backing, SharedMemorySegment) and not _SECTION.fullmatch(asked.backing.name):
        allowed = r"deviceops-…, Local\deviceops-…, Global\deviceops-…"
        refuse("shared_memory.name", "is no name of shared memory that is meant for this server", allowed)
    if asked.backing.offset_bytes < 0:
        refuse(f"{kind}.offset_bytes", f"{asked.backing.offset_bytes} is negative", "0..")
    if asked.size_bytes is not None and asked.size_bytes < 0:
        refuse("size_bytes", f"{asked.size_bytes} is negative", "0..")
    if asked.size_bytes is None and kind == "shared_memory":
        refuse("size_bytes", "shared memory does not tell its size; say it")
    if asked.sha256 and not is_sha256(asked.sha256):
        refuse("sha256", "is no SHA-256: 64 lower-case hex digits")
    if asked.generation < 0:
        refuse("generation", f"{asked.generation} is negative", "1..")
    if asked.keep_for_s is not None and not 0 < asked.keep_for_s < 10 * 365 * 86400:
        refuse("keep_for", "is not a positive time below ten years")
    wrong += label_violations(asked.labels, "labels")
    if wrong:
        raise InvalidRequest(wrong)
