import asyncio
import os
import signal
from pathlib import Path

import pytest

from server.stdio.call import Call, Payload
from server.stdio.ending import CloseStatus, Code, EndKind
from tests.server.stdio.child import Child, started

PICTURE_BYTES = 3 * 1024 * 1024


async def gathered(call: Call) -> list[Payload]:
    return [payload async for payload in call]


async def echoed(child: Child, *messages: Payload) -> list[Payload]:
    call = await child.channel.open("/echo", messages[0].data)
    for message in messages[1:]:
        assert await call.send(message.data, raw=message.raw)
    call.half_close()
    got = await gathered(call)
    assert call.status == CloseStatus(code=Code.OK)
    return got


async def test_messages_and_raw_payloads_come_back_in_order() -> None:
    messages = (Payload(b"a"), Payload(b""), Payload(bytes(range(256)) * 4096, raw=True), Payload(b"", raw=True))
    async with started() as child:
        assert await echoed(child, *messages) == list(messages)


async def test_a_picture_comes_whole() -> None:
    async with started() as child:
        call = await child.channel.open("/picture", str(PICTURE_BYTES).encode())
        assert await gathered(call) == [Payload(bytes(PICTURE_BYTES), raw=True)]


async def test_64_calls_at_once_keep_apart() -> None:
    async with started() as child:
        sent = [[Payload(f"{call}-{n}".encode()) for n in range(20)] for call in range(64)]
        assert await asyncio.gather(*(echoed(child, *messages) for messages in sent)) == sent


async def test_a_status_comes_with_all_its_parts() -> None:
    async with started() as child:
        call = await child.channel.open("/refuse", b"")
        assert await call.end() == CloseStatus(
            code=Code.NOT_FOUND, message="no such thing", details=b"\x08\x05", trailers=(("a", "b"),)
        )


async def test_more_than_the_credit_arrives_when_it_is_taken() -> None:
    async with started() as child:
        got = await gathered(await child.channel.open("/burst", b"1000"))
        assert [int.from_bytes(payload.data, "big") for payload in got] == list(range(1000))


async def test_a_call_that_nobody_reads_holds_its_window_and_blocks_no_other() -> None:
    async with started() as child:
        unread = await child.channel.open("/newest", b"500")
        assert await echoed(child, Payload(b"another")) == [Payload(b"another")]
        # The other call was answered after /newest had run to its end: it dropped what it had no credit for.
        assert unread.status == CloseStatus(code=Code.OK, message="484")
        assert len(await gathered(unread)) == 16


async def test_leaving_a_call_early_frees_the_sender() -> None:
    async with started() as child:
        async with await child.channel.open("/burst", b"1000") as call:
            await anext(call)
        assert (await call.end()).code == Code.OK
        assert await echoed(child, Payload(b"next")) == [Payload(b"next")]


async def test_a_cancelled_call_still_tells_how_it_stopped() -> None:
    async with started() as child:
        call = await child.channel.open("/until", b"")
        call.cancel("no longer wanted")
        assert await gathered(call) == [Payload(b"no longer wanted")]
        assert call.status == CloseStatus(code=Code.CANCELLED, message="no longer wanted")
        assert not await call.send(b"too late")


async def test_a_kill_ends_every_call_with_unavailable() -> None:
    async with started() as child:
        calls = [await child.channel.open("/until", b"") for _ in range(3)]
        os.kill(child.process.pid, signal.SIGKILL)
        assert {(await call.end()).code for call in calls} == {Code.UNAVAILABLE}
        assert (await child.channel.closed).kind == EndKind.END_OF_STREAM
        late = await child.channel.open("/echo", b"late")
        assert late.status is not None
        assert late.status.code == Code.UNAVAILABLE
        with pytest.raises(ConnectionError):
            await child.channel.ping(5)


async def test_garbage_from_the_child_closes_the_pipe_with_go_away() -> None:
    async with started() as child:
        call = await child.channel.open("/garbage", b"")
        assert (await call.end()).code == Code.UNAVAILABLE
        end = await child.channel.closed
        assert end.kind == EndKind.BAD_FRAME
        assert "4c 6f 61" in end.detail
        # The child was told, not merely cut off.
        assert "ended: WENT_AWAY" in await child.stderr()


async def test_garbage_to_the_child_is_answered_with_go_away() -> None:
    async with started() as child:
        call = await child.channel.open("/until", b"")
        child.process.write(b"GET / HTTP/1.1\r\n")
        end = await child.channel.closed
        assert end.kind == EndKind.WENT_AWAY
        assert "47 45 54" in end.detail
        assert (await call.end()).code == Code.UNAVAILABLE
        assert "ended: BAD_FRAME" in await child.stderr()


async def test_prints_in_the_child_go_to_stderr() -> None:
    async with started() as child:
        call = await child.channel.open("/noise", b"quiet", half_close=True)
        assert await gathered(call) == [Payload(b"quiet")]
        child.channel.close()
        noise = await child.stderr()
        for line in ("a print", "a native library", "the original object", "a C library", "a child of the child"):
            assert line in noise


async def test_pings_are_answered_while_the_child_computes(tmp_path: Path) -> None:
    done = tmp_path / "done"
    async with started() as child:
        call = await child.channel.open("/compute", str(done).encode())
        assert await child.channel.ping(10) > 0
        assert call.status is None
        done.touch()
        assert (await call.end()).code == Code.OK


async def test_a_stopped_process_answers_no_ping() -> None:
    async with started() as child:
        os.kill(child.process.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await child.channel.ping(0.05)
        os.kill(child.process.pid, signal.SIGCONT)
        assert await child.channel.ping(10) > 0


async def test_closing_the_channel_ends_the_child() -> None:
    async with started() as child:
        call = await child.channel.open("/until", b"")
        child.channel.close("done")
        assert (await call.end()).code == Code.UNAVAILABLE
        assert await child.process.wait() == 0


async def test_too_large_a_message_is_refused_before_it_is_sent() -> None:
    async with started() as child:
        with pytest.raises(ValueError, match="over the receiver's"):
            await child.channel.open("/echo", bytes(16 * 1024 * 1024))
        assert await echoed(child, Payload(b"still works")) == [Payload(b"still works")]
