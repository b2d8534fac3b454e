"""Whether the server is shutting down: one value for all that refuse or end something because of it."""

from collections.abc import Callable

from domains.errors import ErrorReason, Unavailable


class Draining:
    """False until the shutdown begins; never false again."""

    def __init__(self) -> None:
        self.begun = False
        self.listeners: list[Callable[[], None]] = []
        """Called when the shutdown begins."""

    def begin(self) -> None:
        """The server takes no new work from now on."""
        self.begun = True
        for listener in self.listeners:
            listener()

    def check(self) -> None:
        """Refuse new work with DRAINING."""
        if self.begun:
            raise Unavailable("the server is shutting down and takes no new work", ErrorReason.DRAINING)
