using DeviceOps.Api.Memory.V1;
using DeviceOps.Client.Blobs;
using Grpc.Core;

namespace DeviceOps.Client;

/// <summary>A file or shared memory that this process has registered as a blob of the server. Disposing of it deletes the blob; the bytes stay.</summary>
public sealed class MappedBlob : IAsyncDisposable
{
    private readonly BlobDoor door;
    private readonly RegisterBlobRequest request;
    private bool deleted;

    private MappedBlob(BlobDoor door, RegisterBlobRequest request, Blob blob)
    {
        this.door = door;
        this.request = request;
        Blob = blob;
        request.BlobId = blob.Id;
    }

    /// <summary>The blob, as it was last registered.</summary>
    public Blob Blob { get; private set; }

    /// <summary>The blob's id, for requests.</summary>
    public string Id => Blob.Id;

    /// <summary>Registers the bytes again: after they were rewritten, which raises the generation, or after a restart of the server.</summary>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The blob.</returns>
    /// <exception cref="DeviceOpsException">The server refused; BLOB_IN_USE: the older generation is being read.</exception>
    public async Task<Blob> RefreshAsync(CancellationToken cancellationToken = default) =>
        Blob = (await door.Memory.RegisterBlobAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Blob;

    /// <summary>Deletes the blob; deferred while jobs or readers use it. A server that is away is not waited for: such a blob ends with it.</summary>
    /// <returns>When the server has taken it.</returns>
    public async ValueTask DisposeAsync()
    {
        if (deleted)
        {
            return;
        }
        deleted = true;
        try
        {
            await door.Memory.DeleteBlobAsync(new DeleteBlobRequest { BlobId = Id }, deadline: DateTime.UtcNow.AddSeconds(10)).ResponseAsync.ConfigureAwait(false);
        }
        catch (RpcException error) when (error.StatusCode != StatusCode.NotFound)
        {
            Log.DeleteFailed(door.Logger, Id, error.Message);
        }
        catch (RpcException)
        {
            // It is gone already, which is what was asked for.
        }
    }

    internal static async Task<MappedBlob> RegisterAsync(BlobDoor door, RegisterBlobRequest request, CancellationToken stop)
    {
        if (request.BlobId.Length == 0)
        {
            // An id of the server's choice cannot be registered again, which RefreshAsync does.
            request.BlobId = $"mapped-{Guid.NewGuid():N}";
        }
        var answer = await door.Memory.RegisterBlobAsync(request, cancellationToken: stop).ResponseAsync.ConfigureAwait(false);
        request.RequestId = "";
        return new MappedBlob(door, request, answer.Blob);
    }
}
