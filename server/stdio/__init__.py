"""Calls over a byte pipe: the method paths and messages of the contract, over stdin and stdout of a child process.

The layout and the rules both ends keep are told once, in `protos/deviceops/stdio/v1/frame.proto`.

    pipe       protect_stdout() → (in_fd, out_fd): first thing in a child; its prints can no longer reach the frames
    frames     FrameDecoder, encode, encode_raw_header, FrameError: the codec
    hello      own_hello, expect_hello: what each end says first
    credit     Allowance, Window: how much may be sent, and how much must still be taken
    ending     Code, CloseStatus, EndKind, PipeEnd: how a call ended, how the pipe ended
    channel    FrameChannel: asyncio, the end that started the process and makes the calls
    call       Call, Payload: one such call
    child      ChildProcess: a child and its pipe, started here or adopted (AdoptedProcess, in adopted)
    peer       FramePeer: threads, the end inside the process, which serves the calls
    command    Opened, Message, HalfClosed, Cancelled, Ended: what it tells the thread that works

Neither end waits for a slow call on behalf of another: what may be under way in a call is bounded by its credit, and
the two readers never wait for anybody's consumer.
"""
