"""The open calls of a frame peer with their credit, shared by its reader and the working threads."""

import threading
from time import monotonic

from server.stdio.credit import Allowance, Window
from server.stdio.frames import FrameError


class _ServedCall:
    def __init__(self, credit_messages: int) -> None:
        self.allowance = Allowance(credit_messages)
        self.window = Window()


class ServedCalls:
    """The open calls. Every method may be called from any thread; only `wait_for_credit` waits."""

    def __init__(self) -> None:
        self.last_id = 0
        """The highest call id so far."""
        self._changed = threading.Condition()
        self._open: dict[int, _ServedCall] = {}

    def open(self, call_id: int, credit_messages: int) -> None:
        """Add a call. Raises `FrameError` for an id that the caller may not use."""
        if call_id <= self.last_id or call_id % 2 == 0:
            raise FrameError(f"call {call_id} opened after {self.last_id}; the ids are odd and rise")
        with self._changed:
            self.last_id = call_id
            self._open[call_id] = _ServedCall(credit_messages)

    def close(self, call_id: int) -> bool:
        """Remove a call. False: it had ended before."""
        with self._changed:
            self._changed.notify_all()
            return self._open.pop(call_id, None) is not None

    def close_all(self) -> None:
        """Remove all calls, because the pipe has ended."""
        with self._changed:
            self._open.clear()
            self._changed.notify_all()

    def arrived(self, call_id: int) -> bool:
        """Count a message that arrived. False: its call is closed already. Raises `FrameError` for one without credit."""
        with self._changed:
            call = self._find(call_id)
            if call is not None:
                call.window.arrived()
            return call is not None

    def taken(self, call_id: int) -> int:
        """Count a message that was taken from the inbox. Returns the credit to grant to the caller now."""
        with self._changed:
            call = self._open.get(call_id)
            return 0 if call is None else call.window.taken()

    def granted(self, call_id: int, messages: int) -> None:
        """Add granted credit. Raises `FrameError` for a grant of 0 or less."""
        with self._changed:
            call = self._find(call_id)
            if call is not None:
                call.allowance.add(messages)
                self._changed.notify_all()

    def take_credit(self, call_id: int) -> bool:
        """Spend one credit. False: there is none, or the call has ended."""
        with self._changed:
            call = self._open.get(call_id)
            return call is not None and call.allowance.take()

    def wait_for_credit(self, call_id: int, until: float | None) -> bool:
        """Wait until the call has credit. False: the call has ended, or `until` (monotonic time; None: never) has passed."""
        with self._changed:
            while (call := self._open.get(call_id)) is not None:
                if call.allowance.messages > 0:
                    return True
                rest = None if until is None else until - monotonic()
                if rest is not None and rest <= 0:
                    return False
                self._changed.wait(rest)
        return False

    def is_open(self, call_id: int) -> bool:
        """Whether the call is open. Raises `FrameError` for a call that was never opened."""
        with self._changed:
            return self._find(call_id) is not None

    def _find(self, call_id: int) -> _ServedCall | None:
        """The call; None: it is closed, and the frame crossed with this end's close."""
        if call_id > self.last_id:
            raise FrameError(f"a frame for call {call_id}, which was never opened")
        return self._open.get(call_id)
