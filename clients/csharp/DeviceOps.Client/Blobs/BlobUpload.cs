using DeviceOps.Api.Memory.V1;
using DeviceOps.Client.Calls;
using Google.Protobuf;

namespace DeviceOps.Client.Blobs;

/// <summary>Sends a seekable stream as a blob. A broken upload goes on at the byte that the server has safe.</summary>
internal sealed class BlobUpload(BlobDoor door, Stream source, BlobSpec spec)
{
    private const int ChunkBytes = 1 << 20;
    private readonly long origin = source.Position;
    private readonly Backoff backoff = new();
    private string blobId = "";
    private long written;

    public async Task<Blob> RunAsync(CancellationToken stop)
    {
        var request = new CreateBlobRequest { BlobSpec = spec, RequestId = Guid.NewGuid().ToString() };
        while (true)
        {
            try
            {
                var blob = await BeginAsync(request, stop).ConfigureAwait(false);
                return blob.State == BlobState.Writing ? await SendAsync(stop).ConfigureAwait(false) : blob;
            }
            catch (Exception error) when (Backoff.IsBreak(error) && !stop.IsCancellationRequested)
            {
                await door.WaitAsync(backoff, blobId, written, error, stop).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Makes the blob, or asks how much of it is there.</summary>
    private async Task<Blob> BeginAsync(CreateBlobRequest request, CancellationToken stop)
    {
        var blob = blobId.Length == 0
            ? (await door.Memory.CreateBlobAsync(request, cancellationToken: stop).ResponseAsync.ConfigureAwait(false)).Blob
            : (await door.Memory.GetBlobAsync(new GetBlobRequest { BlobId = blobId }, cancellationToken: stop).ResponseAsync.ConfigureAwait(false)).Blob;
        if (blob.WrittenBytes > written)
        {
            backoff.Reset();
        }
        (blobId, written) = (blob.Id, blob.WrittenBytes);
        return blob;
    }

    private async Task<Blob> SendAsync(CancellationToken stop)
    {
        source.Position = origin + written;
        using var call = door.Memory.UploadBlob(cancellationToken: stop);
        try
        {
            await call.RequestStream.WriteAsync(new UploadBlobRequest { BlobId = blobId }).ConfigureAwait(false);
            for (var offset = written; offset < spec.SizeBytes;)
            {
                var data = await ReadChunkAsync(spec.SizeBytes - offset, stop).ConfigureAwait(false);
                var chunk = new BlobChunk { OffsetBytes = offset, Data = data, Crc32C = Crc32C.Of(data.Span) };
                await call.RequestStream.WriteAsync(new UploadBlobRequest { Chunk = chunk }).ConfigureAwait(false);
                offset += data.Length;
                DeviceOpsTelemetry.BlobBytes.Add(data.Length, new KeyValuePair<string, object?>("direction", "sent"));
            }
            await call.RequestStream.CompleteAsync().ConfigureAwait(false);
        }
        catch (Exception error) when (error is InvalidOperationException or Grpc.Core.RpcException)
        {
            // A server that refuses ends the call while chunks are still on their way; its status says why.
            await call.ResponseAsync.ConfigureAwait(false);
            throw;
        }
        return (await call.ResponseAsync.ConfigureAwait(false)).Blob;
    }

    private async Task<ByteString> ReadChunkAsync(long left, CancellationToken stop)
    {
        var buffer = new byte[Math.Min(left, ChunkBytes)];
        var filled = 0;
        while (filled < buffer.Length)
        {
            var count = await source.ReadAsync(buffer.AsMemory(filled), stop).ConfigureAwait(false);
            if (count == 0)
            {
                throw new EndOfStreamException($"the stream ended {left - filled} bytes before its length");
            }
            filled += count;
        }
        return UnsafeByteOperations.UnsafeWrap(buffer);
    }
}
