using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Reads the file of a picture, and checks its SHA-256.</summary>
    /// <param name="image">The picture, from a result or an update.</param>
    /// <param name="cancellationToken">Stops the read.</param>
    /// <returns>The encoded file: PNG, JPEG, WebP or AVIF, as asked for.</returns>
    /// <exception cref="InvalidOperationException">The picture has no file: it failed or is withheld.</exception>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public Task<byte[]> ReadImageAsync(GeneratedImage image, CancellationToken cancellationToken = default)
    {
        var file = FileOf(image);
        return Blobs.ReadBytesAsync(file.BlobId, file.Sha256, cancellationToken);
    }

    /// <summary>Opens the file of a picture, without holding all of it in memory.</summary>
    /// <param name="image">The picture, from a result or an update.</param>
    /// <returns>A stream that reads forward, and goes on by itself after a break.</returns>
    /// <exception cref="InvalidOperationException">The picture has no file: it failed or is withheld.</exception>
    public Stream OpenImage(GeneratedImage image) => Blobs.OpenRead(FileOf(image).BlobId);

    /// <summary>Writes the file of a picture to disk, and checks its SHA-256. A file of that name is replaced, once all is there.</summary>
    /// <param name="image">The picture, from a result or an update.</param>
    /// <param name="path">Where to write.</param>
    /// <param name="cancellationToken">Stops the read; nothing is left behind.</param>
    /// <returns>When the file is there.</returns>
    /// <exception cref="InvalidOperationException">The picture has no file: it failed or is withheld.</exception>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public Task SaveImageAsync(GeneratedImage image, string path, CancellationToken cancellationToken = default)
    {
        var file = FileOf(image);
        return Blobs.SaveAsync(file.BlobId, path, file.Sha256, cancellationToken);
    }

    private static ImageFile FileOf(GeneratedImage image)
    {
        Check.NotNull(image, nameof(image));
        return image.File ?? throw new InvalidOperationException(
            $"picture {image.Index} has no file: {image.Failure?.Message ?? "it is not ready"}");
    }
}
