using System.Threading.Channels;
using DeviceOps.Api.Stdio.V1;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Status = Grpc.Core.Status;

namespace DeviceOps.Client.Stdio;

/// <summary>
/// One call. Its consumer first gets all messages that came before the end, then the end. A call that is given up here ends here at once, and
/// stays with its pipe until the other end closes it: its messages are dropped, with credit for them, so that the sender never waits.
/// </summary>
internal sealed class StdioCall : IDisposable
{
    /// <summary>Messages that may arrive before the consumer has taken any.</summary>
    public const int WindowMessages = 16;

    private static readonly TimeSpan LongestTimer = TimeSpan.FromDays(40);
    private readonly object gate = new();
    private readonly string method;
    private readonly CallOptions options;
    private readonly Channel<ReadOnlyMemory<byte>> answers = Channel.CreateUnbounded<ReadOnlyMemory<byte>>(new UnboundedChannelOptions { SingleWriter = true });
    private readonly TaskCompletionSource<CallEnd> ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<Metadata> headers = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenRegistration registration;
    private readonly Timer? timer;
    private readonly Task opening;
    private FramePipe? pipe;
    private long id;
    private long credit;
    private TaskCompletionSource<bool>? creditCame;
    private int window = WindowMessages;
    private int taken;
    private bool dropping;
    private bool closed;
    private bool halfClosed;
    private bool cancelled;

    /// <summary>Begins the call when its pipe is there.</summary>
    /// <param name="connect">Gives the pipe.</param>
    /// <param name="method">Path of the method.</param>
    /// <param name="options">Headers, deadline and token.</param>
    /// <param name="request">The frame of the only request; null: requests follow by <see cref="SendAsync"/>.</param>
    public StdioCall(Func<ValueTask<FramePipe>> connect, string method, CallOptions options, byte[]? request)
    {
        (this.method, this.options) = (method, options);
        if (options.Credentials is not null)
        {
            throw new InvalidOperationException("a pipe to a child has no call credentials; send metadata");
        }
        Observe(ended.Task);
        Observe(headers.Task);
        if (Remaining() is { } rest)
        {
            timer = new Timer(static call => ((StdioCall)call!).Expire(), this, rest < LongestTimer ? rest : LongestTimer, Timeout.InfiniteTimeSpan);
        }
        registration = options.CancellationToken.Register(static call => ((StdioCall)call!).Cancel(), this);
        opening = OpenAsync(connect, request);
    }

    /// <summary>Metadata before the first message: a frame pipe has none. Done when the other end has answered.</summary>
    public Task<Metadata> Headers => headers.Task;

    /// <summary>The message that <see cref="NextAsync"/> has found.</summary>
    public ReadOnlyMemory<byte> Current { get; private set; }

    public Status GetStatus() => End().Status;

    public Metadata GetTrailers() => End().Trailers;

    /// <summary>Waits for the next message.</summary>
    /// <returns>False: the call has ended with OK.</returns>
    /// <exception cref="RpcException">It has ended otherwise.</exception>
    public async ValueTask<bool> NextAsync(CancellationToken stop)
    {
        using var left = stop.Register(static call => ((StdioCall)call!).Cancel(), this);
        while (!Volatile.Read(ref dropping))
        {
            if (answers.Reader.TryRead(out var payload))
            {
                Current = payload;
                Took();
                return true;
            }
            if (!await answers.Reader.WaitToReadAsync(CancellationToken.None).ConfigureAwait(false))
            {
                break;
            }
        }
        var end = await ended.Task.ConfigureAwait(false);
        return end.Status.StatusCode == StatusCode.OK ? false : throw end.Error();
    }

    /// <summary>Sends a request, after waiting for credit and for room in the pipe.</summary>
    /// <param name="frame">Its frame, whose header is filled in here.</param>
    /// <exception cref="RpcException">The call has ended.</exception>
    public async Task SendAsync(byte[] frame)
    {
        await opening.ConfigureAwait(false);
        try
        {
            if (await SendOnceAsync(frame, awaitRoom: true).ConfigureAwait(false))
            {
                return;
            }
        }
        catch (FrameTooLargeException error)
        {
            GiveUp(StatusCode.ResourceExhausted, error.Message);
        }
        throw (await ended.Task.ConfigureAwait(false)).Error();
    }

    /// <summary>Tells the other end that no requests follow.</summary>
    public async Task HalfCloseAsync()
    {
        await opening.ConfigureAwait(false);
        HalfClose();
    }

    /// <summary>Ends the call here with a status, unless it has ended, and asks the other end to stop.</summary>
    public void GiveUp(StatusCode code, string detail)
    {
        if (!ended.TrySetResult(new CallEnd(new Status(code, detail), [])))
        {
            return;
        }
        bool attached;
        lock (gate)
        {
            dropping = true;
            attached = pipe is not null;
            creditCame?.TrySetResult(true);
        }
        while (answers.Reader.TryRead(out _))
        {
            Took();
        }
        answers.Writer.TryComplete();
        headers.TrySetException(End().Error());
        Release();
        if (attached)
        {
            SendCancel();
        }
    }

    public void Dispose() => Cancel();

    // Called by the pipe; none of these waits.

    /// <summary>The call has begun in a pipe.</summary>
    public void Attach(FramePipe pipe, long id, long credit)
    {
        lock (gate)
        {
            (this.pipe, this.id, this.credit) = (pipe, id, credit);
        }
    }

    /// <summary>Takes a message.</summary>
    /// <exception cref="FrameException">The other end had no credit for it.</exception>
    public void Deliver(ReadOnlyMemory<byte> payload)
    {
        lock (gate)
        {
            if (window == 0)
            {
                throw new FrameException($"a message without credit: {WindowMessages} are waiting already");
            }
            window--;
        }
        headers.TrySetResult([]);
        if (!answers.Writer.TryWrite(payload))
        {
            Took();
        }
    }

    /// <summary>Adds granted credit.</summary>
    /// <exception cref="FrameException">The grant is below 1.</exception>
    public void Granted(int messages)
    {
        if (messages < 1)
        {
            throw new FrameException($"a grant of {messages} messages; at least 1");
        }
        lock (gate)
        {
            credit += messages;
            creditCame?.TrySetResult(true);
        }
    }

    /// <summary>The call has ended at the other end, or with its pipe.</summary>
    public void Finish(CallEnd end)
    {
        lock (gate)
        {
            closed = true;
            creditCame?.TrySetResult(true);
        }
        ended.TrySetResult(end);
        headers.TrySetResult([]);
        answers.Writer.TryComplete();
        Release();
    }

    private async Task OpenAsync(Func<ValueTask<FramePipe>> connect, byte[]? request)
    {
        try
        {
            var there = await connect().ConfigureAwait(false);
            await there.SettledAsync().ConfigureAwait(false);
            Begin(there);
            if (request is not null && await SendOnceAsync(request, awaitRoom: false).ConfigureAwait(false))
            {
                HalfClose();
            }
        }
        catch (FrameTooLargeException error)
        {
            GiveUp(StatusCode.ResourceExhausted, error.Message);
        }
        catch (IOException error)
        {
            GiveUp(StatusCode.Unavailable, error.Message);
        }
        catch (ObjectDisposedException)
        {
            GiveUp(StatusCode.Cancelled, "the channel was disposed of");
        }
    }

    private void Begin(FramePipe there)
    {
        if (Volatile.Read(ref dropping))
        {
            return;
        }
        var open = new FrameOpen { Method = method, Metadata = { FrameMetadataText.ToFrame(options.Headers) } };
        if (Remaining() is { } rest)
        {
            open.Timeout = Duration.FromTimeSpan(rest);
        }
        if (there.Open(this, open) is { } refusal)
        {
            Finish(refusal);
        }
        else if (Volatile.Read(ref dropping))
        {
            SendCancel(); // it was given up in between
        }
    }

    private async Task<bool> SendOnceAsync(byte[] frame, bool awaitRoom)
    {
        if (!await CreditAsync().ConfigureAwait(false))
        {
            return false;
        }
        FrameFormat.SealRaw(frame, id, pipe!.LimitBytes);
        if (awaitRoom)
        {
            await pipe.Output.WriteAsync(frame).ConfigureAwait(false);
        }
        else
        {
            pipe.Output.Write(frame);
        }
        return true;
    }

    /// <summary>Waits for credit and spends one. False: the call has ended.</summary>
    private async ValueTask<bool> CreditAsync()
    {
        while (true)
        {
            Task came;
            lock (gate)
            {
                if (closed || dropping || pipe is null)
                {
                    return false;
                }
                if (credit > 0)
                {
                    credit--;
                    return true;
                }
                creditCame = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
                came = creditCame.Task;
            }
            await came.ConfigureAwait(false);
        }
    }

    private void HalfClose()
    {
        lock (gate)
        {
            if (closed || dropping || halfClosed || pipe is null)
            {
                return;
            }
            halfClosed = true;
        }
        pipe.Write(new Frame { CallId = id, HalfClose = new FrameHalfClose() });
    }

    private void Took()
    {
        int grant;
        lock (gate)
        {
            taken++;
            if (closed || taken * 2 < WindowMessages)
            {
                return;
            }
            (grant, taken) = (taken, 0);
            window += grant;
        }
        pipe!.Write(new Frame { CallId = id, Credit = new FrameCredit { Messages = grant } });
    }

    /// <summary>Asks the other end to stop, once: a second cancel could disturb its cleaning up.</summary>
    private void SendCancel()
    {
        lock (gate)
        {
            if (closed || cancelled)
            {
                return;
            }
            cancelled = true;
        }
        pipe!.Write(new Frame { CallId = id, Cancel = new FrameCancel { Reason = End().Status.Detail } });
    }

    private void Cancel() => GiveUp(StatusCode.Cancelled, "Call canceled by the client.");

    private void Expire()
    {
        if (Remaining() is { } rest && rest > TimeSpan.FromMilliseconds(1))
        {
            timer?.Change(rest < LongestTimer ? rest : LongestTimer, Timeout.InfiniteTimeSpan);
        }
        else
        {
            GiveUp(StatusCode.DeadlineExceeded, "Deadline Exceeded");
        }
    }

    /// <summary>Time until the deadline, at least 0. Null: there is none.</summary>
    private TimeSpan? Remaining()
    {
        if (options.Deadline is not { } deadline || deadline == DateTime.MaxValue)
        {
            return null;
        }
        var rest = deadline.ToUniversalTime() - DateTime.UtcNow;
        return rest > TimeSpan.Zero ? rest : TimeSpan.Zero;
    }

    private CallEnd End() =>
        ended.Task.IsCompleted ? ended.Task.Result : throw new InvalidOperationException("the call has not ended: it has no status and no trailers yet");

    private void Release()
    {
        timer?.Dispose();
        registration.Dispose();
    }

    /// <summary>An error that is not awaited is no fault of the program.</summary>
    private static void Observe(Task task) =>
        task.ContinueWith(static failed => _ = failed.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
}
