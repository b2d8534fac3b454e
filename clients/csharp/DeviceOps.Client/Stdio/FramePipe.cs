using DeviceOps.Api.Stdio.V1;
using Google.Protobuf;

namespace DeviceOps.Client.Stdio;

/// <summary>Where a pipe writes whole frames, in order. No method waits for the other end.</summary>
internal interface IFrameOutput
{
    /// <summary>Bytes that the other end has not taken yet.</summary>
    long BacklogBytes { get; }

    /// <summary>Puts a frame into the output. Nothing happens once the output is closed.</summary>
    void Write(byte[] frame);

    /// <summary>Puts a frame into the output; the task is done when the pipe has taken it or was closed.</summary>
    Task WriteAsync(byte[] frame);

    /// <summary>Closes the output behind the frames that are in it.</summary>
    void Close();
}

/// <summary>
/// The calling end of a frame pipe. One thread feeds it what the other end writes; it never waits for a consumer or for the output. Each call
/// holds at most its window of messages, so a slow consumer stops only its own call, at the sender.
/// </summary>
internal sealed class FramePipe
{
    private const int PongBacklogBytes = 1 << 20;
    private readonly object gate = new();
    private readonly FrameDecoder decoder = new();
    private readonly Dictionary<long, StdioCall> calls = [];
    private readonly Dictionary<long, TaskCompletionSource<bool>> pings = [];
    private readonly TaskCompletionSource<FrameHello> hello = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<PipeEnd> ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long nextCallId = 1;
    private long nextToken = 1;
    private string? wentAway;

    public FramePipe(IFrameOutput output)
    {
        Output = output;
        var own = new FrameHello { ProtocolVersion = FrameFormat.Version, MaxBodyBytes = FrameFormat.MaxBodyBytes, InitialCreditMessages = StdioCall.WindowMessages };
        output.Write(FrameFormat.Encode(new Frame { Hello = own }));
    }

    public IFrameOutput Output { get; }

    /// <summary>The hello of the other end. It never comes if the pipe ends before.</summary>
    public Task<FrameHello> Hello => hello.Task;

    /// <summary>Done when the pipe has ended.</summary>
    public Task<PipeEnd> Ended => ended.Task;

    /// <summary>The largest frame body that the other end accepts.</summary>
    public long LimitBytes => hello.Task.Result.MaxBodyBytes is var limit and > 0 ? limit : FrameFormat.MaxBodyBytes;

    /// <summary>Waits for the other end's hello, or for the end of the pipe.</summary>
    public async ValueTask SettledAsync()
    {
        if (!hello.Task.IsCompleted)
        {
            await Task.WhenAny(hello.Task, ended.Task).ConfigureAwait(false);
        }
    }

    /// <summary>Starts a call, after <see cref="SettledAsync"/>.</summary>
    /// <returns>Null, or why no call can begin.</returns>
    /// <exception cref="FrameTooLargeException">Its metadata is over the other end's limit; no call began.</exception>
    public CallEnd? Open(StdioCall call, FrameOpen open)
    {
        lock (gate)
        {
            if (Over() is { } over)
            {
                return over.AsCallEnd();
            }
            var frame = FrameFormat.Encode(new Frame { CallId = nextCallId, Open = open }, LimitBytes);
            calls.Add(nextCallId, call);
            Output.Write(frame);
            call.Attach(this, nextCallId, hello.Task.Result.InitialCreditMessages);
            nextCallId += 2;
            return null;
        }
    }

    /// <summary>Puts a small frame into the output.</summary>
    public void Write(Frame frame)
    {
        if (!ended.Task.IsCompleted)
        {
            Output.Write(FrameFormat.Encode(frame, LimitBytes));
        }
    }

    /// <summary>Asks whether the process at the other end lives and reads.</summary>
    /// <exception cref="IOException">The pipe has ended.</exception>
    public async Task PingAsync(CancellationToken stop)
    {
        var pong = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        long token;
        lock (gate)
        {
            if (ended.Task.IsCompleted)
            {
                throw new IOException(ended.Task.Result.Detail);
            }
            pings.Add(token = nextToken++, pong);
        }
        using var registration = stop.Register(() => pong.TrySetCanceled(stop));
        Write(new Frame { Ping = new FramePing { Token = token } });
        try
        {
            await pong.Task.ConfigureAwait(false);
        }
        finally
        {
            lock (gate)
            {
                pings.Remove(token);
            }
        }
    }

    /// <summary>Takes bytes of the other end.</summary>
    /// <returns>Whether the pipe goes on; false: read no further.</returns>
    public bool Feed(ReadOnlySpan<byte> piece)
    {
        try
        {
            while (!ended.Task.IsCompleted && decoder.TryRead(ref piece, out var frame))
            {
                Take(frame);
            }
        }
        catch (FrameException error)
        {
            Finish(new PipeEnd(PipeEndKind.BadFrame, error.Message), say: error.Message);
        }
        return !ended.Task.IsCompleted;
    }

    /// <summary>The other end has closed its side, or reading failed.</summary>
    public void FeedEnd(Exception? error = null)
    {
        var where = decoder.InsideFrame ? "inside a frame" : "between two frames";
        Finish(error is not null ? new PipeEnd(PipeEndKind.Broken, $"reading failed: {error.Message}")
            : wentAway is { } reason ? new PipeEnd(PipeEndKind.WentAway, reason)
            : new PipeEnd(PipeEndKind.EndOfStream, $"the other process closed it or died, {where}"));
    }

    /// <summary>Writing failed.</summary>
    public void WriteFailed(Exception error) => Finish(new PipeEnd(PipeEndKind.Broken, $"writing failed: {error.Message}"));

    /// <summary>Sends go-away and closes the output, which tells a child to end. Open calls end with UNAVAILABLE.</summary>
    public void Close(string reason = "closed") => Finish(new PipeEnd(PipeEndKind.ClosedHere, reason), say: reason);

    private void Take(Incoming incoming)
    {
        if (!hello.Task.IsCompleted)
        {
            hello.TrySetResult(ExpectHello(incoming.Frame));
        }
        else if (incoming.Frame is not { } frame)
        {
            Find(incoming.CallId).Deliver(incoming.Payload);
        }
        else if (frame.CallId != 0)
        {
            TakeForCall(frame);
        }
        else
        {
            TakeForPipe(frame);
        }
    }

    private static FrameHello ExpectHello(Frame? frame) => frame?.Hello switch
    {
        null => throw new FrameException("the first frame is not a hello"),
        { ProtocolVersion: not FrameFormat.Version } other => throw new FrameException($"frame protocol {other.ProtocolVersion}; this end speaks {FrameFormat.Version}"),
        { MaxBodyBytes: < 0 } or { InitialCreditMessages: < 0 } => throw new FrameException("a hello with a limit below 0"),
        var good => good,
    };

    private void TakeForCall(Frame frame)
    {
        var call = Find(frame.CallId);
        switch (frame.BodyCase)
        {
            case Frame.BodyOneofCase.Message:
                call.Deliver(frame.Message.Memory);
                break;
            case Frame.BodyOneofCase.Credit:
                call.Granted(frame.Credit.Messages);
                break;
            case Frame.BodyOneofCase.Close:
                lock (gate)
                {
                    calls.Remove(frame.CallId);
                }
                call.Finish(FrameMetadataText.EndOf(frame.Close));
                break;
            default:
                throw new FrameException($"a {frame.BodyCase} frame from the end that serves calls");
        }
    }

    private void TakeForPipe(Frame frame)
    {
        switch (frame.BodyCase)
        {
            // Where the other end does not read, unanswered pings show it, and pongs must not pile up.
            case Frame.BodyOneofCase.Ping when Output.BacklogBytes >= PongBacklogBytes:
                break;
            case Frame.BodyOneofCase.Ping:
                Write(new Frame { Pong = new FramePong { Token = frame.Ping.Token } });
                break;
            case Frame.BodyOneofCase.Pong:
                lock (gate)
                {
                    pings.GetValueOrDefault(frame.Pong.Token)?.TrySetResult(true);
                }
                break;
            case Frame.BodyOneofCase.GoAway:
                GoAway(frame.GoAway);
                break;
            default:
                throw new FrameException($"a second {frame.BodyCase} frame");
        }
    }

    private void GoAway(FrameGoAway message)
    {
        List<StdioCall> neverBegan;
        lock (gate)
        {
            wentAway = message.Reason;
            var ids = calls.Keys.Where(id => id > message.LastCallId).ToList();
            neverBegan = ids.ConvertAll(id => calls[id]);
            ids.ForEach(id => calls.Remove(id));
        }
        neverBegan.ForEach(call => call.Finish(Leaving().AsCallEnd()));
    }

    private PipeEnd Leaving() => new(PipeEndKind.WentAway, $"the other end goes away: {wentAway}");

    private PipeEnd? Over() => ended.Task.IsCompleted ? ended.Task.Result : wentAway is null ? null : Leaving();

    private StdioCall Find(long callId)
    {
        lock (gate)
        {
            return calls.GetValueOrDefault(callId) ?? throw new FrameException($"a frame for call {callId}, which is not open");
        }
    }

    /// <summary>Ends everything that waits on this pipe, and closes this side of it. Only the first call has an effect.</summary>
    private void Finish(PipeEnd end, string? say = null)
    {
        List<StdioCall> open;
        List<TaskCompletionSource<bool>> waiting;
        lock (gate)
        {
            if (!ended.TrySetResult(end))
            {
                return;
            }
            (open, waiting) = ([.. calls.Values], [.. pings.Values]);
            calls.Clear();
        }
        if (say is not null)
        {
            Output.Write(FrameFormat.Encode(new Frame { GoAway = new FrameGoAway { Reason = say } }));
        }
        Output.Close();
        open.ForEach(call => call.Finish(end.AsCallEnd()));
        waiting.ForEach(pong => pong.TrySetException(new IOException(end.Detail)));
    }
}
