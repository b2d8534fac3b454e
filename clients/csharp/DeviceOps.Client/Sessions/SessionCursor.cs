using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Calls;
using Grpc.Core;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client.Sessions;

/// <summary>One reader's position among the events of a session. It survives every break of the connection and of the server.</summary>
internal sealed class SessionCursor(
    ProcessingService.ProcessingServiceClient processing, DeviceOpsClientOptions options, ILogger logger, string sessionId, long sequence) : IAsyncDisposable
{
    private readonly Backoff backoff = new();
    private bool reached;
    private AsyncServerStreamingCall<WatchSessionResponse>? call;

    /// <summary>The next message; null after the last.</summary>
    public async ValueTask<WatchSessionResponse?> NextAsync(CancellationToken stop)
    {
        while (true)
        {
            stop.ThrowIfCancellationRequested();
            try
            {
                var message = await ReadAsync(stop).ConfigureAwait(false);
                reached = true;
                backoff.Reset();
                if (message is null)
                {
                    return null;
                }
                if (message.SessionSequence > sequence)
                {
                    sequence = message.SessionSequence;
                    return message;
                }
            }
            catch (Exception error) when (Backoff.IsBreak(error) && !stop.IsCancellationRequested)
            {
                await RecoverAsync(error, stop).ConfigureAwait(false);
            }
            catch (Exception error) when (stop.IsCancellationRequested)
            {
                throw new OperationCanceledException(error.Message, error, stop);
            }
        }
    }

    public ValueTask DisposeAsync()
    {
        call?.Dispose();
        call = null;
        return default;
    }

    /// <summary>One message, or a break if the server is silent for too long: it sends heartbeats.</summary>
    private async Task<WatchSessionResponse?> ReadAsync(CancellationToken stop)
    {
        call ??= processing.WatchSession(new WatchSessionRequest { SessionId = sessionId, AfterSequence = sequence });
        using var silence = CancellationTokenSource.CreateLinkedTokenSource(stop);
        silence.CancelAfter(options.SilenceTimeout);
        return await call.ResponseStream.MoveNext(silence.Token).ConfigureAwait(false) ? call.ResponseStream.Current : null;
    }

    private async Task RecoverAsync(Exception error, CancellationToken stop)
    {
        call?.Dispose();
        call = null;
        var limit = reached ? options.ReconnectTimeout : options.ConnectTimeout;
        if (backoff.Lasting > limit)
        {
            throw error as DeviceOpsException ?? Unreachable.Error(error, limit);
        }
        var delay = backoff.Next();
        Log.SessionWatchBroke(logger, sessionId, sequence, error.Message, delay.TotalMilliseconds);
        await Task.Delay(delay, stop).ConfigureAwait(false);
    }
}
