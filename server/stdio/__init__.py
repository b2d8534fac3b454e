"""Calls over a byte pipe: the method paths and messages of the contract, over stdin and stdout of a child process.

The layout and the rules both ends keep are told once, in `protos/deviceops/stdio/v1/frame.proto`.

    pipe.protect_stdout() → (in_fd, out_fd)      first thing in a child: its prints can no longer reach the frames
    frames.FrameDecoder, encode, encode_raw_header, FrameError      the codec
    credit.Allowance, Window                     how much may be sent, and how much must still be taken
    ending.Code, CloseStatus, PipeEnd            how a call ended, how the pipe ended
    channel.FrameChannel, Call                   asyncio: the end that started the process and makes the calls
    peer.FramePeer, Opened, Message, …           threads: the end inside the process, which serves them

Neither end waits for a slow call on behalf of another: what may be under way in a call is bounded by its credit, and
the two readers never wait for anybody's consumer.
"""
