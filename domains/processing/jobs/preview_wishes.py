"""The previews that a job's watchers want. All watchers see the same ones, so the finest wish counts."""

from collections.abc import Callable

from domains.inference.generation import Previews


class PreviewWishes:
    """Wishes by job, as long as their watchers follow it. One event loop."""

    def __init__(self) -> None:
        self._wishes: dict[str, list[Previews]] = {}
        self.listeners: list[Callable[[str], None]] = []
        """Called with the id of each job whose wishes change."""

    def join(self, job_id: str, wish: Previews) -> Callable[[], None]:
        """Add a watcher's wish. Returns the function that removes it; call it once."""
        if not wish.every_steps:
            return lambda: None
        self._wishes.setdefault(job_id, []).append(wish)
        self._tell(job_id)
        return lambda: self._leave(job_id, wish)

    def of(self, job_id: str, own: Previews) -> Previews:
        """The previews to make for a job that itself asked for `own`."""
        return finest(own, *self._wishes.get(job_id, ()))

    def _leave(self, job_id: str, wish: Previews) -> None:
        wishes = self._wishes[job_id]
        wishes.remove(wish)
        if not wishes:
            del self._wishes[job_id]
        self._tell(job_id)

    def _tell(self, job_id: str) -> None:
        for listener in self.listeners:
            listener(job_id)


def finest(*wishes: Previews) -> Previews:
    """The smallest interval and the longest edge of all wishes for previews; no previews if there is no such wish."""
    some = [wish for wish in wishes if wish.every_steps]
    if not some:
        return Previews()
    return Previews(
        every_steps=min(wish.every_steps for wish in some), max_edge_px=max(wish.max_edge_px for wish in some)
    )
