using System.IO.MemoryMappedFiles;
using System.Security.Cryptography;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Memory.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

public sealed class BlobTests(SharedServer server)
{
    private readonly DeviceOpsClient client = server.Client;

    [Fact]
    public async Task AStreamThatCannotSeekGoesUpAndComesDown()
    {
        var bytes = RandomNumberGenerator.GetBytes(3_000_001);
        await using var content = new ForwardOnly(new MemoryStream(bytes));
        var blob = await client.Blobs.UploadAsync(content, new BlobSpec { MediaType = "image/x-test", Tier = BlobTier.Host }, Asking.Stop);

        Assert.Equal((BlobState.Ready, BlobTier.Host, "image/x-test"), (blob.State, blob.Tier, blob.MediaType));
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(bytes)), blob.Sha256);
        await using var down = client.Blobs.OpenRead(blob.Id);
        using var copy = new MemoryStream();
        await down.CopyToAsync(copy, Asking.Stop);
        Assert.Equal(bytes, copy.ToArray());
        Assert.Equal(bytes.Length, down.Position);
    }

    [Fact]
    public async Task AnEmptyBlobIsABlob()
    {
        var blob = await client.Blobs.UploadAsync(new MemoryStream(), cancellationToken: Asking.Stop);
        Assert.Empty(await client.Blobs.ReadBytesAsync(blob.Id, blob.Sha256, Asking.Stop));
    }

    [Fact]
    public async Task OtherBytesThanPromisedAreRefusedHereToo()
    {
        var blob = await client.Blobs.UploadAsync(new MemoryStream([1, 2, 3]), cancellationToken: Asking.Stop);
        await Assert.ThrowsAsync<InvalidDataException>(() => client.Blobs.ReadBytesAsync(blob.Id, new string('0', 64), Asking.Stop));
        var path = Path.Combine(Path.GetTempPath(), $"{Guid.NewGuid():N}");
        await Assert.ThrowsAsync<InvalidDataException>(() => client.Blobs.SaveAsync(blob.Id, path, new string('0', 64), Asking.Stop));
        Assert.Empty(Directory.GetFiles(Path.GetTempPath(), Path.GetFileName(path) + "*"));
    }

    [Fact]
    public async Task ACancelledReadIsAnOperationCanceled()
    {
        var blob = await client.Blobs.UploadAsync(new MemoryStream(new byte[100]), cancellationToken: Asking.Stop);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => client.Blobs.ReadBytesAsync(blob.Id, null, new CancellationToken(true)));
    }

    [Fact]
    public async Task AMappedFileIsABlobUntilItsRegistrationIsDisposedOf()
    {
        Assert.SkipUnless(Directory.Exists("/dev/shm"), "needs /dev/shm");
        var path = $"/dev/shm/deviceops-client-{Guid.NewGuid():N}";
        try
        {
            using var file = MemoryMappedFile.CreateFromFile(path, FileMode.CreateNew, null, 1 << 20);
            using var view = file.CreateViewAccessor();
            view.Write(0, 1L);
            var mapped = await client.Blobs.RegisterAsync(path, cancellationToken: Asking.Stop);
            await using (mapped)
            {
                Assert.Equal((BlobTier.Mapped, 1L), (mapped.Blob.Tier, mapped.Blob.Generation));
                view.Write(0, 2L);
                Assert.Equal(2, (await mapped.RefreshAsync(Asking.Stop)).Generation);
                var bytes = await client.Blobs.ReadBytesAsync(mapped.Id, mapped.Blob.Sha256, Asking.Stop);
                Assert.Equal(2L, BitConverter.ToInt64(bytes));
            }
            var gone = await Assert.ThrowsAsync<DeviceOpsException>(() => client.Blobs.ReadBytesAsync(mapped.Id, null, Asking.Stop));
            Assert.Equal(ErrorReason.BlobNotFound, gone.Reason);
            Assert.True(File.Exists(path));
            await mapped.DisposeAsync();
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void TheChecksumIsCastagnolis()
    {
        Assert.Equal(0xE3069283u, Crc32C.Of("123456789"u8));
        Assert.Equal(Crc32C.Of("123456789"u8), Crc32C.Append(Crc32C.Of("1234"u8), "56789"u8));
    }

    private sealed class ForwardOnly(Stream inner) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override int Read(byte[] buffer, int offset, int count) => inner.Read(buffer, offset, count);

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
