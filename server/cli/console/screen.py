"""Draws figures again after each measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from server.cli.console.printing import print_json
from server.cli.console.tables import console, draw

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import RenderableType

AnyMessage = TypeVar("AnyMessage", bound="Message")

WatchOption = Annotated[bool, typer.Option("--watch", help="Measure again and again, until Ctrl-C.")]
IntervalOption = Annotated[float, typer.Option(min=0.1, max=60, help="With --watch: seconds between two looks.")]
RoundsOption = Annotated[int, typer.Option("--rounds", min=0, help="With --watch: stop after so many; 0: never.")]


def show_rounds(
    messages: Iterable[AnyMessage], picture: Callable[[AnyMessage], RenderableType], rounds: int, *, json: bool
) -> None:
    """Print each message as a line of JSON, or draw it: in place in a terminal, otherwise one below the other.

    At the end, a terminal shows its former content and the last drawing below.
    """
    if json or not sys.stdout.isatty():
        for message in _first(messages, rounds):
            print_json(message, one_line=True) if json else draw(picture(message))
        return
    last: list[RenderableType] = []
    try:
        _show_live(_first(messages, rounds), picture, last)
    finally:
        if last:
            draw(last[0])


def _show_live(
    messages: Iterable[AnyMessage], picture: Callable[[AnyMessage], RenderableType], last: list[RenderableType]
) -> None:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, screen=True) as live:
        for message in messages:
            last[:] = [picture(message)]
            live.update(last[0], refresh=True)


def rounds_of(messages: Iterable[AnyMessage]) -> Iterable[AnyMessage]:
    """The messages without heartbeats, which have no field set."""
    return (message for message in messages if message.ListFields())


def _first(messages: Iterable[AnyMessage], rounds: int) -> Iterable[AnyMessage]:
    for number, message in enumerate(rounds_of(messages), 1):
        yield message
        if number == rounds:
            return
