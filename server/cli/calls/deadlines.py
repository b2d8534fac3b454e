"""Time limits of the command line's calls, so that a server that never answers cannot block a command for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from server.cli.console.failure import USAGE, CliError

if TYPE_CHECKING:
    from grpc import ClientCallDetails

ANSWER_S = 120.0
"""Longest wait for the answer of a call that names no limit of its own. The slowest ones wait for a model to be unloaded
or for memory to be measured."""
SILENCE_S = 60.0
"""Longest silence of a stream. A server sends something at least every 10 s, see `server.heartbeat`."""
UPLOAD_S = 3600.0
"""Longest upload."""
VARIABLE = "DEVICEOPS_CALL_TIMEOUT_S"
"""The environment variable that replaces all three."""


def limit_s(default: float) -> float:
    """The limit in seconds. Raises `CliError` (usage) for an environment variable that is no number above 0."""
    text = os.environ.get(VARIABLE, "")
    try:
        asked = float(text) if text else default
    except ValueError:
        asked = 0.0
    if not asked > 0:
        raise CliError(f"{VARIABLE} is {text!r}; use a number of seconds above 0", USAGE)
    return asked


class _Details(grpc.ClientCallDetails):
    """The details of a call, with another time limit."""

    def __init__(self, given: ClientCallDetails, timeout: float) -> None:
        self.method, self.metadata, self.credentials = given.method, given.metadata, given.credentials
        self.wait_for_ready, self.compression = given.wait_for_ready, given.compression
        self.timeout = timeout


def _limited(given: ClientCallDetails, default: float) -> ClientCallDetails:
    return given if given.timeout is not None else _Details(given, limit_s(default))


class Deadlines(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Gives each call its limit."""

    def __init__(self, address: str) -> None:
        """`address`: for the messages."""
        self._address = address

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        """One answer, within `ANSWER_S`."""
        return continuation(_limited(client_call_details, ANSWER_S), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request_iterator: Any
    ) -> Any:
        """An upload, within `UPLOAD_S`."""
        return continuation(_limited(client_call_details, UPLOAD_S), request_iterator)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        """A stream without a total limit; each message comes within `SILENCE_S`."""
        return Listening(continuation(client_call_details, request), limit_s(SILENCE_S), self._address)


class Listening:
    """A stream's messages. Raises `CliError` if the server is silent for too long; the reader's own time does not count."""

    def __init__(self, call: Any, silence_s: float, address: str) -> None:
        self._call = call
        self._silence_s = silence_s
        self._address = address
        self._silent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        timer = threading.Timer(self._silence_s, self._leave)
        timer.daemon = True
        timer.start()
        try:
            return next(self._call)
        except grpc.RpcError:
            if not self._silent:
                raise
            message = f"the server at {self._address} accepts calls and has said nothing for {self._silence_s:g} s"
            raise CliError(f"{message}; see `deviceops status`, and its log") from None
        finally:
            timer.cancel()

    def _leave(self) -> None:
        self._silent = True
        self._call.cancel()
