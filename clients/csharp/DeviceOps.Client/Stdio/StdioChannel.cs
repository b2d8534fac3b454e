using System.Diagnostics;
using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>
/// A gRPC channel to a child process, over frames on its stdin and stdout: every generated stub works on it unchanged. The child starts with
/// the first call or with <see cref="ConnectAsync"/>. When it dies or its pipe ends, open calls end with UNAVAILABLE, and the next call starts a
/// new child. Disposing of the channel closes the child's stdin, which a server takes as a request to end. Thread-safe.
/// </summary>
public sealed class StdioChannel : ChannelBase, IDisposable, IAsyncDisposable
{
    private readonly StdioChannelOptions options;
    private readonly SemaphoreSlim starting = new(1);
    private StdioChild? child;
    private int starts;
    private bool disposed;

    /// <summary>Makes a channel; nothing starts yet.</summary>
    /// <param name="options">Which child to start, and how.</param>
    /// <exception cref="ArgumentException">The command is empty.</exception>
    public StdioChannel(StdioChannelOptions options)
        : base("stdio")
    {
        Check.NotNull(options, nameof(options));
        if (options.Command is not { Count: > 0 })
        {
            throw new ArgumentException("Command must name a program", nameof(options));
        }
        this.options = options;
    }

    /// <summary>How many children were started.</summary>
    public int Starts => Volatile.Read(ref starts);

    /// <summary>Id of the present child process. Null: none was started.</summary>
    public int? ProcessId => Volatile.Read(ref child)?.Id;

    /// <summary>Why the last pipe ended. Null: it has not.</summary>
    public string? EndReason => Volatile.Read(ref child)?.Pipe.Ended is { IsCompleted: true } ended ? ended.Result.Detail : null;

    /// <summary>Starts the child if none runs, and waits until it serves.</summary>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <returns>What the child says of itself; <c>InstanceId</c> is another after each restart.</returns>
    /// <exception cref="IOException">The child cannot be started, or ended before it served.</exception>
    public async Task<Api.Stdio.V1.FrameHello> ConnectAsync(CancellationToken cancellationToken = default)
    {
        var pipe = await PipeAsync().ConfigureAwait(false);
        var stopped = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = cancellationToken.Register(() => stopped.TrySetResult(true));
        await Task.WhenAny(pipe.SettledAsync().AsTask(), stopped.Task).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        return pipe.Hello.IsCompleted
            ? pipe.Hello.Result
            : throw new IOException($"the child did not say hello: {pipe.Ended.Result.Detail}");
    }

    /// <summary>Asks whether the child lives and reads. It does not tell that the child's work goes on; events of calls tell that.</summary>
    /// <param name="cancellationToken">Stops the wait for the answer.</param>
    /// <returns>The time until the answer.</returns>
    /// <exception cref="IOException">The child cannot be started, or ended before it answered.</exception>
    /// <exception cref="OperationCanceledException">The token came before the answer.</exception>
    public async Task<TimeSpan> PingAsync(CancellationToken cancellationToken)
    {
        await ConnectAsync(cancellationToken).ConfigureAwait(false);
        var watch = Stopwatch.StartNew();
        await (await PipeAsync().ConfigureAwait(false)).PingAsync(cancellationToken).ConfigureAwait(false);
        return watch.Elapsed;
    }

    /// <inheritdoc/>
    public override CallInvoker CreateCallInvoker() => new StdioInvoker(PipeAsync);

    /// <summary>Closes the child's stdin, and kills the child if it has not ended in time. Does not wait for that.</summary>
    public void Dispose() => _ = DisposeAsync().AsTask();

    /// <summary>Closes the child's stdin, and waits until the child has ended; it is killed if it has not in time.</summary>
    /// <returns>When it is gone.</returns>
    public async ValueTask DisposeAsync()
    {
        await starting.WaitAsync().ConfigureAwait(false);
        try
        {
            if (disposed)
            {
                return;
            }
            disposed = true;
        }
        finally
        {
            starting.Release();
        }
        if (child is not null)
        {
            child.Pipe.Close();
            if (!await child.ExitAsync(options.EndTimeout).ConfigureAwait(false))
            {
                await child.KillAsync().ConfigureAwait(false);
            }
        }
    }

    /// <inheritdoc/>
    protected override async Task ShutdownAsyncCore() => await DisposeAsync().ConfigureAwait(false);

    /// <summary>The pipe of a running child, started if need be.</summary>
    internal ValueTask<FramePipe> PipeAsync() =>
        Volatile.Read(ref child) is { Pipe.Ended.IsCompleted: false } live && !Volatile.Read(ref disposed) ? new(live.Pipe) : new(StartedAsync());

    private async Task<FramePipe> StartedAsync()
    {
        await starting.WaitAsync().ConfigureAwait(false);
        try
        {
            if (disposed)
            {
                throw new ObjectDisposedException(nameof(StdioChannel));
            }
            if (child is not { Pipe.Ended.IsCompleted: false })
            {
                if (child is not null)
                {
                    await child.KillAsync().ConfigureAwait(false); // it cannot be talked to
                }
                // Starting a process takes milliseconds: not in the thread of a caller that awaits.
                Volatile.Write(ref child, await Task.Run(() => StdioChild.Start(options)).ConfigureAwait(false));
                Interlocked.Increment(ref starts);
            }
            return child!.Pipe;
        }
        finally
        {
            starting.Release();
        }
    }
}
