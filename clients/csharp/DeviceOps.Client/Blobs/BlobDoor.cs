using System.Diagnostics;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Client.Calls;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client.Blobs;

/// <summary>What transfers of blobs need: the stub, and how long they wait for a server that is away.</summary>
internal sealed class BlobDoor(MemoryService.MemoryServiceClient memory, DeviceOpsClientOptions options, ILogger logger)
{
    public MemoryService.MemoryServiceClient Memory { get; } = memory;

    public ILogger Logger { get; } = logger;

    /// <summary>Waits before the next attempt of a broken transfer; throws once the server is away for too long.</summary>
    public async Task WaitAsync(Backoff backoff, string blobId, long offset, Exception error, CancellationToken stop)
    {
        var limit = offset > 0 ? options.ReconnectTimeout : options.ConnectTimeout;
        if (backoff.Lasting > limit)
        {
            throw error as DeviceOpsException ?? Unreachable.Error(error, limit);
        }
        var delay = backoff.Next();
        Log.TransferBroke(Logger, blobId, offset, error.Message, delay.TotalMilliseconds);
        await Task.Delay(delay, stop).ConfigureAwait(false);
    }
}
