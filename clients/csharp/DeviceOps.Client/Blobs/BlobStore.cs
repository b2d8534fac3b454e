using System.Security.Cryptography;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Client.Blobs;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client;

/// <summary>Blobs as streams: large data on its way to the server and back, and files that both processes map.</summary>
public sealed class BlobStore
{
    private readonly BlobDoor door;

    internal BlobStore(MemoryService.MemoryServiceClient memory, DeviceOpsClientOptions options, ILogger logger) =>
        door = new BlobDoor(memory, options, logger);

    /// <summary>Sends the rest of a stream as a new blob. A broken connection does not begin it anew.</summary>
    /// <param name="content">The bytes, from its position to its end. One that cannot seek is first copied to a temporary file.</param>
    /// <param name="mediaType">What the bytes are. Empty: not said.</param>
    /// <param name="cancellationToken">Stops the upload; what arrived expires.</param>
    /// <returns>The blob, READY.</returns>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    public Task<Blob> UploadAsync(Stream content, string mediaType = "", CancellationToken cancellationToken = default) =>
        UploadAsync(content, new BlobSpec { MediaType = mediaType }, cancellationToken);

    /// <summary>Sends the rest of a stream as a new blob, in any tier. A broken connection does not begin it anew.</summary>
    /// <param name="content">The bytes, from its position to its end. One that cannot seek is first copied to a temporary file.</param>
    /// <param name="spec">Tier, device, labels, retention. Its size is set from the stream.</param>
    /// <param name="cancellationToken">Stops the upload; what arrived expires.</param>
    /// <returns>The blob, READY.</returns>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    public async Task<Blob> UploadAsync(Stream content, BlobSpec spec, CancellationToken cancellationToken = default)
    {
        Check.NotNull(content, nameof(content));
        Check.NotNull(spec, nameof(spec));
        if (!content.CanSeek)
        {
            using var copy = TemporaryFile();
            await content.CopyToAsync(copy, 1 << 17, cancellationToken).ConfigureAwait(false);
            copy.Position = 0;
            return await UploadAsync(copy, spec, cancellationToken).ConfigureAwait(false);
        }
        var sized = spec.Clone();
        sized.SizeBytes = content.Length - content.Position;
        return await new BlobUpload(door, content, sized).RunAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Opens a blob.</summary>
    /// <param name="blobId">The blob.</param>
    /// <returns>A stream that reads forward, and goes on by itself after a break.</returns>
    public Stream OpenRead(string blobId)
    {
        Check.NotEmpty(blobId, nameof(blobId));
        return new BlobReadStream(door, blobId);
    }

    /// <summary>Reads a whole blob into memory.</summary>
    /// <param name="blobId">The blob.</param>
    /// <param name="sha256">The SHA-256 that its bytes must have, as hex digits. Null: it is not compared.</param>
    /// <param name="cancellationToken">Stops the read.</param>
    /// <returns>The bytes.</returns>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    /// <exception cref="InvalidDataException">The bytes have another SHA-256.</exception>
    public async Task<byte[]> ReadBytesAsync(string blobId, string? sha256 = null, CancellationToken cancellationToken = default)
    {
        using var content = new MemoryStream();
        await CopyAsync(blobId, content, sha256, cancellationToken).ConfigureAwait(false);
        return content.ToArray();
    }

    /// <summary>Writes a whole blob to a file. A file of that name is replaced, once all is there.</summary>
    /// <param name="blobId">The blob.</param>
    /// <param name="path">Where to write.</param>
    /// <param name="sha256">The SHA-256 that its bytes must have, as hex digits. Null: it is not compared.</param>
    /// <param name="cancellationToken">Stops the read; nothing is left behind.</param>
    /// <returns>When the file is there.</returns>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    /// <exception cref="InvalidDataException">The bytes have another SHA-256.</exception>
    public async Task SaveAsync(string blobId, string path, string? sha256 = null, CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(path, nameof(path));
        var part = $"{path}.{Guid.NewGuid():N}.part";
        try
        {
            using (var file = new FileStream(part, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16, useAsync: true))
            {
                await CopyAsync(blobId, file, sha256, cancellationToken).ConfigureAwait(false);
            }
            File.Delete(path);
            File.Move(part, path);
        }
        finally
        {
            File.Delete(part);
        }
    }

    /// <summary>Makes a blob of a file that this process owns, or a part of it: the server reads the same pages and keeps no copy.</summary>
    /// <param name="path">The file, inside one of the server's <c>blob_roots</c>.</param>
    /// <param name="blobId">The id that it shall have. Empty: a new one.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The registration; dispose of it to delete the blob. The file stays.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public Task<MappedBlob> RegisterAsync(string path, string blobId = "", CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(path, nameof(path));
        return RegisterAsync(new RegisterBlobRequest { BlobId = blobId, File = new MappedFile { Path = Path.GetFullPath(path) } }, cancellationToken);
    }

    /// <summary>Makes a blob of a file or of named shared memory that this process owns.</summary>
    /// <param name="request">What, and what it is to be. It is copied.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The registration; dispose of it to delete the blob. File and mapping stay.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public Task<MappedBlob> RegisterAsync(RegisterBlobRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        return MappedBlob.RegisterAsync(door, request.Clone(), cancellationToken);
    }

    private async Task CopyAsync(string blobId, Stream target, string? sha256, CancellationToken stop)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var source = OpenRead(blobId);
        var buffer = new byte[1 << 17];
        for (int count; (count = await source.ReadAsync(buffer.AsMemory(), stop).ConfigureAwait(false)) > 0;)
        {
            hash.AppendData(buffer, 0, count);
            await target.WriteAsync(buffer.AsMemory(0, count), stop).ConfigureAwait(false);
        }
        var found = string.Concat(hash.GetHashAndReset().Select(value => value.ToString("x2", System.Globalization.CultureInfo.InvariantCulture)));
        if (!string.IsNullOrEmpty(sha256) && !string.Equals(found, sha256, StringComparison.OrdinalIgnoreCase))
        {
            throw new InvalidDataException($"blob {blobId} has the SHA-256 {found} instead of {sha256}");
        }
    }

    private static FileStream TemporaryFile() =>
        new(Path.GetTempFileName(), FileMode.Open, FileAccess.ReadWrite, FileShare.None, 1 << 16, FileOptions.DeleteOnClose | FileOptions.Asynchronous);
}
