"""Calls over a byte pipe: method paths and messages over stdin and stdout of a child process.

`protos/deviceops/stdio/v1/frame.proto` specifies the layout and the rules of both ends.

    pipe       protect_stdout() → (in_fd, out_fd): called first in a child, so that prints cannot reach the frames
    frames     FrameDecoder, encode, encode_raw_header, FrameError: the codec
    hello      own_hello, expect_hello: the first frame of each end
    credit     Allowance, Window: credit-based flow control
    ending     Code, CloseStatus, EndKind, PipeEnd: how a call ended, how the pipe ended
    channel    FrameChannel: the calling end, in the parent process, with asyncio
    call       Call, Payload: one call of the channel
    child      ChildProcess: a child and its pipe, started here or adopted (AdoptedProcess, in adopted)
    peer       FramePeer: the serving end, in the child process, with threads
    served     ServedCalls: the open calls of a peer
    command    Opened, Message, HalfClosed, CallCancelled, Ended: what a peer passes to the working thread
    client     StdioClient: a `grpc.aio.Channel` to a child that it starts; every generated stub works on it
    rpc        Rpc, UnaryRpc: one call of the client
    transport  StdioTransport: hosts gRPC services over a peer, `deviceops serve --stdio`
    handled_call  HandledCall: one call of the transport; context, its servicer context
    writer     PipeWriter: writes of an event loop to a blocking pipe
    metadata   to_frame, from_frame: base64 of binary metadata
    output     write_all: whole frames to a blocking descriptor

A slow call never delays another: credit bounds the messages in flight of each call, and the readers of both ends never
wait for a consumer.
"""
