"""Users of the operating system that settings name."""

import sys
from collections.abc import Iterable


def user_id(name: str) -> int:
    """The id of a user, given by name or as a number. ValueError if there is no such user, and on Windows."""
    if sys.platform == "win32":
        raise ValueError("files on Windows have no user id; leave the setting empty")
    import pwd

    try:
        return int(name) if name.isascii() and name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {name}; give the name or the id of a user of this machine") from None


def user_ids(names: Iterable[str]) -> frozenset[int]:
    """The ids of several users."""
    return frozenset(map(user_id, names))
