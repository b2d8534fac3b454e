"""Idempotency: the same request_id gives the same answer, once, on every call that starts or changes something.

A call is looked up by its content (`Asked`) before anything else, whatever has changed meanwhile in devices, models and
the server. Jobs and blobs are stored with the request that created them, and answer it as long as they exist; every
other answer is kept for a day, in memory (`Remembered`).
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
    """The content of a call, as far as it identifies a repetition."""

    scope: str = ""
    """The namespace of the id: the method, or all methods that submit jobs."""
    request_id: str = ""
    """Empty: each call is new."""
    digest: str = ""
    """Digest of the rest of the call."""

    @property
    def key(self) -> str:
        """A key for each id of each scope."""
        return f"{self.scope}/{self.request_id}"


NEW = Asked()
"""A call without an id."""


class Known(msgspec.Struct, Generic[Answer], frozen=True, kw_only=True):
    """A call that was answered, with its answer."""

    digest: str
    answer: Answer
    facts: Mapping[str, str] = {}
    """What the call created, for the error of a caller that reuses its id."""


class _AtWork:
    """A call that is being executed."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Requests(Generic[Answer]):
    """Answers of earlier calls. A failure is not an answer: the same call may work later. One event loop."""

    def __init__(
        self,
        recall: Callable[[Asked], Known[Answer] | None],
        remember: Callable[[Asked, Answer], None] = lambda asked, answer: None,
    ) -> None:
        """`remember`: stores an answer that the work itself does not store."""
        self._recall = recall
        self._remember = remember
        self._at_work: dict[str, _AtWork] = {}

    def known(self, asked: Asked) -> Answer | None:
        """The answer of the same earlier call. None: the call is new. Raises REQUEST_ID_REUSED for a used id."""
        check_request_id(asked.request_id)
        known = self._recall(asked) if asked.request_id else None
        if known is None:
            return None
        _check_same(asked, known.digest, known.facts)
        return known.answer

    async def once(self, asked: Asked, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of the same earlier call, else of the work. A repetition waits while the first call runs."""
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
            # If the first call failed, one of the waiting calls runs next.
            del self._at_work[asked.key]
            mine.done.set_result(None)


class Remembered(Generic[Answer]):
    """Keeps the answers of a day in memory, the newest ones if there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Known[Answer]]] = OrderedDict()

    def recall(self, asked: Asked) -> Known[Answer] | None:
        """The answer of an earlier call. None: there is none (any more)."""
        self._forget_old(MAX_REMEMBERED)
        return self._known[asked.key][1] if asked.key in self._known else None

    def remember(self, asked: Asked, answer: Answer) -> None:
        """Keep an answer for as long as a client may repeat its call."""
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
    """Calls whose answers are kept in memory only."""
    return Requests(answers.recall, answers.remember)


def _check_same(asked: Asked, digest: str, facts: Mapping[str, str] | None = None) -> None:
    if asked.digest != digest:
        made = "".join(f", which made {name.removesuffix('_id')} {value}" for name, value in (facts or {}).items())
        message = f"request_id {asked.request_id!r} was used for another request{made}; choose another id for new work"
        raise AlreadyExists(message, ErrorReason.REQUEST_ID_REUSED, request_id=asked.request_id, **(facts or {}))


def check_request_id(request_id: str) -> None:
    """Raise INVALID_FIELD for an impossible id. Empty is allowed: no id."""
    if not _REQUEST_ID.fullmatch(request_id):
        message = "at most 64 visible ASCII characters"
        raise InvalidRequest([Violation(field="request_id", message=message, allowed="0..64 characters")])
