"""Whether the server is shutting down: one value for all code that refuses or ends work because of it."""

from collections.abc import Callable

from domains.errors import ErrorReason, Unavailable


class Draining:
    """False until the shutdown begins, then true for ever."""

    def __init__(self) -> None:
        self.begun = False
        self.listeners: list[Callable[[], None]] = []
        """Called when the shutdown begins."""

    def begin(self) -> None:
        """Begin the shutdown: the server takes no new work from now on."""
        self.begun = True
        for listener in self.listeners:
            listener()

    def check(self) -> None:
        """Raise DRAINING if the server is shutting down."""
        if self.begun:
            raise Unavailable("the server is shutting down and takes no new work", ErrorReason.DRAINING)
