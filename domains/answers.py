"""The same request_id gives the same answer, once: what was answered, remembered for a while."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from domains.errors import AlreadyExists, ErrorReason, InvalidRequest, Violation

KEEP_S = 24 * 3600.0
MAX_ANSWERS = 10_000
_REQUEST_ID = re.compile(r"[!-~]{0,64}")

Answer = TypeVar("Answer")


class _Known(Generic[Answer]):
    __slots__ = ("answer", "asked", "time_s")

    def __init__(self, asked: object, time_s: float) -> None:
        self.asked = asked
        self.time_s = time_s
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class Answers(Generic[Answer]):
    """Answers of one verb. A failure is not remembered: the same call may work later."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, _Known[Answer]] = OrderedDict()

    async def once(self, request_id: str, asked: object, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do the work, or give the answer that the same request has had. Without an id: do the work.

        A repetition that comes while the first is still at work waits for it. REQUEST_ID_REUSED: `asked` differs.
        """
        check_request_id(request_id)
        if not request_id:
            return await work()
        self._forget_old()
        while known := self._known.get(request_id):
            if known.asked != asked:
                message = f"request_id {request_id!r} was used for another request; choose another"
                raise AlreadyExists(message, ErrorReason.REQUEST_ID_REUSED, request_id=request_id)
            await asyncio.wait([known.answer])
            if not known.answer.cancelled():
                return known.answer.result()
        return await self._first(request_id, asked, work)

    async def _first(self, request_id: str, asked: object, work: Callable[[], Awaitable[Answer]]) -> Answer:
        known = self._known[request_id] = _Known[Answer](asked, self._clock())
        try:
            answer = await work()
        except BaseException:
            # Those who wait for it try for themselves.
            self._known.pop(request_id, None)
            known.answer.cancel()
            raise
        known.answer.set_result(answer)
        return answer

    def _forget_old(self) -> None:
        limit = self._clock() - KEEP_S
        while self._known:
            request_id, known = next(iter(self._known.items()))
            fresh = known.time_s > limit and len(self._known) < MAX_ANSWERS
            # One that is still at work stays: its repetition would do the work twice.
            if fresh or not known.answer.done():
                return
            del self._known[request_id]


def check_request_id(request_id: str) -> None:
    """INVALID_FIELD where it cannot be one. Empty: none."""
    if not _REQUEST_ID.fullmatch(request_id):
        message = "at most 64 visible ASCII characters"
        raise InvalidRequest([Violation(field="request_id", message=message, allowed="0..64 characters")])
