using DeviceOps.Api.Memory.V1;
using DeviceOps.Client.Calls;
using Grpc.Core;

namespace DeviceOps.Client.Blobs;

/// <summary>The bytes of a blob, forward only. A broken read goes on at the byte where it broke.</summary>
internal sealed class BlobReadStream(BlobDoor door, string blobId) : Stream
{
    private readonly CancellationTokenSource closed = new();
    private readonly Backoff backoff = new();
    private AsyncServerStreamingCall<ReadBlobResponse>? call;
    private ReadOnlyMemory<byte> rest;
    private long received;
    private long position;
    private bool ended;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => position;
        set => throw new NotSupportedException();
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        while (rest.IsEmpty && !ended && buffer.Length > 0)
        {
            await ReceiveAsync(cancellationToken).ConfigureAwait(false);
        }
        var count = Math.Min(buffer.Length, rest.Length);
        rest.Slice(0, count).CopyTo(buffer);
        rest = rest.Slice(count);
        position += count;
        return count;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => ReadAsync(buffer, offset, count, default).GetAwaiter().GetResult();

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        closed.Cancel();
        call?.Dispose();
        base.Dispose(disposing);
    }

    private async Task ReceiveAsync(CancellationToken stop)
    {
        try
        {
            call ??= door.Memory.ReadBlob(new ReadBlobRequest { BlobId = blobId, OffsetBytes = received }, cancellationToken: closed.Token);
            if (await call.ResponseStream.MoveNext(stop).ConfigureAwait(false))
            {
                Take(call.ResponseStream.Current);
            }
            else
            {
                ended = true;
            }
        }
        catch (Exception error) when (Backoff.IsBreak(error) && !stop.IsCancellationRequested && !closed.IsCancellationRequested)
        {
            call?.Dispose();
            call = null;
            await door.WaitAsync(backoff, blobId, received, error, stop).ConfigureAwait(false);
        }
        catch (RpcException) when (stop.IsCancellationRequested)
        {
            throw new OperationCanceledException(stop);
        }
    }

    private void Take(ReadBlobResponse piece)
    {
        if (piece.HasCrc32C && Crc32C.Of(piece.Data.Span) != (uint)piece.Crc32C)
        {
            throw new IOException($"bytes of blob {blobId} from {piece.OffsetBytes} on were damaged on their way");
        }
        rest = piece.Data.Memory;
        received = piece.OffsetBytes + piece.Data.Length;
        backoff.Reset();
        DeviceOpsTelemetry.BlobBytes.Add(piece.Data.Length, new KeyValuePair<string, object?>("direction", "received"));
    }
}
