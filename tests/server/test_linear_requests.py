"""The work of a request grows as its lists do: for each list of each request, ten times the entries take at most twelve
times the lines of code, from the bytes to the first answer or the refusal.

Lines do not depend on the machine. What is below Python (a search in a list, a copy of bytes) has none, so the processor
time is looked at as well, with a limit that no noise reaches and that squared growth passes fourfold.
The lists are those of the descriptors, so a new field is measured without a line here.
"""

import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from domains import limits
from server.stdio.ending import Code
from tests.server.in_process import Edge, edge, first_answer
from tests.server.test_unimplemented import METHODS

FEW = 100
MANY = 10 * FEW
"""Below the most that a request may have."""
MOST_RATIO = 12
MOST_TIME_RATIO = 25
"""Linear is 10 and a little more for colder caches; squared is 100."""
_ROUNDS = 40
"""Most measurements of one list. The shortest counts, since a busy machine only adds."""

Path = tuple[FieldDescriptor, ...]


def lists(message: Descriptor, within: tuple[str, ...] = ()) -> Iterator[Path]:
    """The path of each repeated field, also within other messages; a message within itself is left out."""
    for field in message.fields:
        inner = field.message_type
        if field.is_repeated:
            yield (field,)
        if inner is not None and inner.full_name not in within:
            yield from ((field, *rest) for rest in lists(inner, (*within, inner.full_name)))


WITH_LISTS = sorted(name for name, method in METHODS.items() if any(lists(method.input_type)))


def request(root: Descriptor, path: Path, entries: int) -> bytes:
    """A request whose only content is that list, with entries that differ."""
    whole: Any = GetMessageClass(root)()
    message = whole
    for field in path[:-1]:
        message = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
    target = getattr(message, path[-1].name)
    for index in range(entries):
        if path[-1].message_type:
            fill(target.add(), index)
        else:
            target.append(value(path[-1], index))
    return whole.SerializeToString()


def fill(message: Message, index: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if not field.is_repeated and not field.message_type and not field.containing_oneof:
            setattr(message, field.name, value(field, index))


def value(field: Any, index: int) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = f"e{index}"
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            numbers = list(field.enum_type.values_by_number)
            return numbers[index % len(numbers)]
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return index / MANY
        case _:
            return index


async def call(handler: Any, data: bytes) -> None:
    context = await first_answer(handler, data)
    assert context.aborted is None or context.aborted.code is not Code.INTERNAL, "a bug answered the call"


async def seconds(handler: Any, data: bytes) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    await call(handler, data)
    return time.process_time() - begin


async def lines(handler: Any, data: bytes) -> int:
    """Lines of Python that one call runs."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await call(handler, data)
    finally:
        sys.settrace(before)
    return count


async def time_ratio(handler: Any, few: bytes, many: bytes) -> float:
    """How many times longer the second request takes: of the shortest of some calls, or of many where that is too long."""
    short, long = float("inf"), float("inf")
    for _ in range(_ROUNDS):
        short = min(short, await seconds(handler, few), await seconds(handler, few))
        long = min(long, await seconds(handler, many))
        if long <= MOST_TIME_RATIO * short:
            break
    return long / short


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def methods(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with edge(tmp_path_factory.mktemp("edge")) as hosted:
        yield hosted


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", WITH_LISTS)
async def test_ten_times_the_entries_take_at_most_twelve_times_as_long(name: str, methods: Edge) -> None:
    assert MANY <= limits.LIST_ENTRIES
    root, handler = METHODS[name].input_type, await methods.handler(METHODS[name])
    too_long: dict[str, str] = {}
    gc.disable()
    try:
        for path in lists(root):
            where = ".".join(field.name for field in path)
            few, many = request(root, path, FEW), request(root, path, MANY)
            # The first call fills caches.
            await call(handler, few)
            if (grown := await lines(handler, many) / await lines(handler, few)) > MOST_RATIO:
                too_long[where] = f"{grown:.1f} times the lines"
            elif (grown := await time_ratio(handler, few, many)) > MOST_TIME_RATIO:
                too_long[where] = f"{grown:.1f} times the time"
    finally:
        gc.enable()
    assert not too_long
