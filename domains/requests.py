"""The same request_id gives the same answer, once, on every call that starts or changes something.

A call is looked up by what it says (`Asked`) before anything else is looked at: whatever has become of devices, models and
the server meanwhile. Jobs and blobs are written down with the request that they answer, and are its answer for as long as
they are there; every other answer is remembered for a day, in memory (`Remembered`).
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from domains.errors import AlreadyExists, ErrorReason, InvalidRequest, Violation

KEEP_S = 24 * 3600.0
MAX_REMEMBERED = 10_000
_REQUEST_ID = re.compile(r"[!-~]{0,64}")

Answer = TypeVar("Answer")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a call says, as far as it matters whether it is the same one again."""

    scope: str = ""
    """Whose ids it is one of: the method, or all that submit jobs."""
    request_id: str = ""
    """Empty: each call counts."""
    digest: str = ""
    """Of all else that it says."""

    @property
    def key(self) -> str:
        """One for each id of each scope."""
        return f"{self.scope}/{self.request_id}"


NEW = Asked()
"""A call without an id."""


class Known(msgspec.Struct, Generic[Answer], frozen=True, kw_only=True):
    """A call that was answered."""

    digest: str
    answer: Answer
    facts: Mapping[str, str] = {}
    """What it made, for a caller who uses its id for something else."""


class _AtWork:
    """A call that is being answered."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Requests(Generic[Answer]):
    """Calls that were answered. A failure is no answer: the same call may work later. One event loop."""

    def __init__(
        self,
        recall: Callable[[Asked], Known[Answer] | None],
        remember: Callable[[Asked, Answer], None] = lambda asked, answer: None,
    ) -> None:
        """`remember`: where the answer is not written down by the work itself."""
        self._recall = recall
        self._remember = remember
        self._at_work: dict[str, _AtWork] = {}

    def known(self, asked: Asked) -> Answer | None:
        """What the same call was answered; None: it is new. REQUEST_ID_REUSED: another call had this id."""
        check_request_id(asked.request_id)
        known = self._recall(asked) if asked.request_id else None
        if known is None:
            return None
        _check_same(asked, known.digest, known.facts)
        return known.answer

    async def once(self, asked: Asked, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer that the same call had, or that of the work. One that comes meanwhile waits for the first."""
        while (answer := self.known(asked)) is None:
            first = self._at_work.get(asked.key) if asked.request_id else None
            if first is None:
                return await self._first(asked, work)
            _check_same(asked, first.digest)
            await asyncio.wait([first.done])
        return answer

    async def _first(self, asked: Asked, work: Callable[[], Awaitable[Answer]]) -> Answer:
        if not asked.request_id:
            return await work()
        mine = self._at_work[asked.key] = _AtWork(asked.digest)
        try:
            answer = await work()
            self._remember(asked, answer)
            return answer
        finally:
            # Where it failed, those who wait for it try for themselves.
            del self._at_work[asked.key]
            mine.done.set_result(None)


class Remembered(Generic[Answer]):
    """Answers in memory: the newest of a day."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Known[Answer]]] = OrderedDict()

    def recall(self, asked: Asked) -> Known[Answer] | None:
        """What was answered."""
        self._forget_old(MAX_REMEMBERED)
        return self._known[asked.key][1] if asked.key in self._known else None

    def remember(self, asked: Asked, answer: Answer) -> None:
        """For as long as a client may still repeat its call."""
        self._forget_old(MAX_REMEMBERED - 1)
        self._known[asked.key] = self._clock(), Known(digest=asked.digest, answer=answer)

    def _forget_old(self, room: int) -> None:
        limit = self._clock() - KEEP_S
        while self._known:
            key, (time_s, _) = next(iter(self._known.items()))
            if time_s > limit and len(self._known) <= room:
                return
            del self._known[key]


def in_memory(answers: "Remembered[Answer]") -> Requests[Answer]:
    """Calls whose answers nothing else keeps."""
    return Requests(answers.recall, answers.remember)


def _check_same(asked: Asked, digest: str, facts: Mapping[str, str] | None = None) -> None:
    if asked.digest != digest:
        made = "".join(f", which made {name.removesuffix('_id')} {value}" for name, value in (facts or {}).items())
        message = f"request_id {asked.request_id!r} was used for another request{made}; choose another id for new work"
        raise AlreadyExists(message, ErrorReason.REQUEST_ID_REUSED, request_id=asked.request_id, **(facts or {}))


def check_request_id(request_id: str) -> None:
    """INVALID_FIELD where it cannot be one. Empty: none."""
    if not _REQUEST_ID.fullmatch(request_id):
        message = "at most 64 visible ASCII characters"
        raise InvalidRequest([Violation(field="request_id", message=message, allowed="0..64 characters")])
