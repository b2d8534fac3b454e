using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>The messages of a stream of answers.</summary>
internal sealed class StdioReader<T>(StdioCall call, Marshaller<T> marshaller) : IAsyncStreamReader<T>
    where T : class
{
    private T? current;

    public T Current => current ?? throw new InvalidOperationException("no message was read");

    public async Task<bool> MoveNext(CancellationToken cancellationToken)
    {
        if (!await call.NextAsync(cancellationToken).ConfigureAwait(false))
        {
            current = null;
            return false;
        }
        current = Read(call, marshaller);
        return true;
    }

    /// <summary>The message that the call has found, parsed.</summary>
    /// <exception cref="RpcException">It does not parse: INTERNAL, as in gRPC.</exception>
    public static T Read(StdioCall call, Marshaller<T> marshaller)
    {
        try
        {
            return marshaller.ContextualDeserializer(new ReceivedPayload(call.Current));
        }
        catch (Exception error)
        {
            call.GiveUp(StatusCode.Internal, $"an answer does not parse: {error.Message}");
            throw new RpcException(new Status(StatusCode.Internal, "an answer does not parse", error));
        }
    }
}

/// <summary>Sends a stream of requests, one at a time.</summary>
internal sealed class StdioWriter<T>(StdioCall call, Marshaller<T> marshaller) : IClientStreamWriter<T>
    where T : class
{
    private Task last = Task.CompletedTask;
    private bool complete;

    public WriteOptions? WriteOptions { get; set; }

    public Task WriteAsync(T message) => WriteAsync(message, CancellationToken.None);

    public Task WriteAsync(T message, CancellationToken cancellationToken)
    {
        Check.NotNull(message, nameof(message));
        return complete
            ? throw new InvalidOperationException("the stream of requests is complete")
            : Follow(() => SendAsync(RequestBuffer.FrameOf(marshaller, message), cancellationToken));
    }

    public Task CompleteAsync()
    {
        complete = true;
        return Follow(call.HalfCloseAsync);
    }

    private Task Follow(Func<Task> next) =>
        last.IsCompleted ? last = next() : throw new InvalidOperationException("the write before has not ended; await it");

    private async Task SendAsync(byte[] frame, CancellationToken stop)
    {
        using var left = stop.Register(() => call.GiveUp(StatusCode.Cancelled, "Call canceled by the client."));
        await call.SendAsync(frame).ConfigureAwait(false);
    }
}
