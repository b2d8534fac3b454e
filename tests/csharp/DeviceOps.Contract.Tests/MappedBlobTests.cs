using System.IO.MemoryMappedFiles;
using System.Security.Cryptography;
using DeviceOps.Api.Memory.V1;
using Google.Rpc;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Contract.Tests;

/// <summary>A file that this process maps and writes is a blob of the server, without a copy. Its root is /dev/shm.</summary>
public sealed class MappedBlobTests(RunningServer server) : IClassFixture<RunningServer>, IDisposable
{
    private const int SizeBytes = 8 * 1024 * 1024;

    private readonly MemoryService.MemoryServiceClient memory = new(server.Channel);
    private readonly string path = Path.Combine("/dev/shm", $"deviceops-csharp-{Guid.NewGuid():N}");
    private readonly string blobId = $"weights-{Guid.NewGuid():N}";

    public void Dispose() => File.Delete(path);

    [Fact]
    public async Task TheServerReadsWhatThisProcessHasMapped()
    {
        Assert.SkipUnless(Directory.Exists("/dev/shm"), "needs /dev/shm");
        using var file = MemoryMappedFile.CreateFromFile(path, FileMode.CreateNew, null, SizeBytes);
        using var view = file.CreateViewAccessor();
        var first = Write(view, seed: 1);

        var blob = await Register();
        Assert.Equal(BlobTier.Mapped, blob.Tier);
        Assert.Equal(BlobState.Ready, blob.State);
        Assert.Equal(BlobOrigin.Registration, blob.Origin);
        Assert.Equal(SizeBytes, blob.SizeBytes);
        Assert.Equal(1, blob.Generation);
        Assert.Equal(Hash(first), blob.Sha256);
        Assert.Equal(first, await Read(generation: 1));

        var second = Write(view, seed: 2);
        var stale = await Assert.ThrowsAsync<RpcException>(() => Read(generation: 1));
        Assert.Equal("BLOB_CORRUPT", stale.GetRpcStatus()!.GetDetail<ErrorInfo>()!.Reason);

        Assert.Equal(2, (await Register()).Generation);
        Assert.Equal(second, await Read(generation: 2));

        var deleted = await memory.DeleteBlobAsync(new DeleteBlobRequest { BlobId = blobId }, cancellationToken: Stop);
        Assert.False(deleted.Deferred);
        Assert.True(File.Exists(path));
    }

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    private static byte[] Write(MemoryMappedViewAccessor view, int seed)
    {
        var bytes = new byte[SizeBytes];
        new Random(seed).NextBytes(bytes);
        view.WriteArray(0, bytes, 0, bytes.Length);
        return bytes;
    }

    private async Task<Blob> Register()
    {
        var request = new RegisterBlobRequest { BlobId = blobId, File = new MappedFile { Path = path } };
        return (await memory.RegisterBlobAsync(request, cancellationToken: Stop)).Blob;
    }

    private async Task<byte[]> Read(long generation)
    {
        var request = new ReadBlobRequest { BlobId = blobId, ExpectedGeneration = generation };
        using var call = memory.ReadBlob(request, cancellationToken: Stop);
        using var content = new MemoryStream();
        await foreach (var piece in call.ResponseStream.ReadAllAsync(Stop))
        {
            piece.Data.WriteTo(content);
        }
        return content.ToArray();
    }
}
