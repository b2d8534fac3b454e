using System.Security.Cryptography;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using Google.Rpc;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Contract.Tests;

public sealed class GenerateTests(RunningServer server) : IClassFixture<RunningServer>
{
    private static readonly byte[] PngHeader = [0x89, (byte)'P', (byte)'N', (byte)'G', 0x0D, 0x0A, 0x1A, 0x0A];

    private static readonly JobEvent.KindOneofCase[] Endings =
    [
        JobEvent.KindOneofCase.Succeeded, JobEvent.KindOneofCase.PartiallySucceeded,
        JobEvent.KindOneofCase.Failed, JobEvent.KindOneofCase.Cancelled,
    ];

    private readonly InferenceService.InferenceServiceClient inference = new(server.Channel);
    private readonly MemoryService.MemoryServiceClient memory = new(server.Channel);

    [Fact]
    public async Task GeneratesThePicture()
    {
        var messages = await Generate(ARedApple(steps: 8));

        Assert.NotEmpty(messages[0].Event.JobId);
        Assert.Equal(1, messages[0].Event.Sequence);
        Assert.All(messages.Zip(messages.Skip(1)), pair => AssertFollows(pair.First.Event, pair.Second.Event));
        Assert.Contains(messages, message => message.Event.KindCase == JobEvent.KindOneofCase.Preview);
        var ending = Assert.Single(messages, message => Endings.Contains(message.Event.KindCase));
        Assert.Same(messages[^1], ending);
        Assert.True(ending.Event.KindCase == JobEvent.KindOneofCase.Succeeded, ending.Event.ToString());

        var image = Assert.Single(ending.Result.Images);
        Assert.Equal(7, image.Seed);
        var bytes = await Read(image.File.BlobId);
        Assert.Equal(image.File.SizeBytes, bytes.Length);
        Assert.Equal(image.File.Sha256, Convert.ToHexStringLower(SHA256.HashData(bytes)));
        Assert.Equal("image/png", image.File.MediaType);
        Assert.Equal(PngHeader, bytes.Take(PngHeader.Length));
    }

    [Fact]
    public async Task AResultsGenerationSentAgainGivesTheSameFile()
    {
        var request = ARedApple(steps: 4);
        request.Generation.Determinism = Determinism.Exact; // whatever other tests let the device compute meanwhile
        var first = (await Generate(request))[^1].Result;
        var again = (await Generate(new GenerateRequest { Generation = first.Resolved.Generation }))[^1].Result;

        Assert.Equal(first.Images[0].File.Sha256, again.Images[0].File.Sha256);
        Assert.Equal(first.Resolved.Generation, again.Resolved.Generation);
    }

    [Fact]
    public async Task ABadRequestNamesItsField()
    {
        var error = await Assert.ThrowsAsync<RpcException>(() => Generate(ARedApple(steps: 0)));

        Assert.Equal(StatusCode.InvalidArgument, error.StatusCode);
        var status = Assert.IsType<Google.Rpc.Status>(error.GetRpcStatus());
        Assert.Contains(status.GetDetail<BadRequest>()!.FieldViolations, violation => violation.Field == "generation.sampling.steps");
        Assert.Equal("INVALID_FIELD", status.GetDetail<ErrorInfo>()!.Reason);
    }

    /// <summary>Sequences rise; only a heartbeat, which no journal keeps, repeats the one before it, so that resuming after it misses nothing.</summary>
    private static void AssertFollows(JobEvent before, JobEvent after)
    {
        var least = after.KindCase == JobEvent.KindOneofCase.Heartbeat ? before.Sequence : before.Sequence + 1;
        Assert.True(after.Sequence >= least, $"{after.KindCase} has sequence {after.Sequence} after {before.Sequence}");
    }

    private static GenerateRequest ARedApple(int steps) => new()
    {
        Generation = new Generation
        {
            Prompt = "a red apple",
            WidthPx = 128,
            HeightPx = 128,
            Sampling = new Sampling { Seed = 7, Steps = steps },
            Output = new EncodeOptions { MediaType = "image/png", Manifest = ManifestDetail.Recipe, Provenance = true },
            Previews = new PreviewOptions { EverySteps = 1 },
        },
    };

    private async Task<List<GenerateResponse>> Generate(GenerateRequest request)
    {
        using var call = inference.Generate(request, cancellationToken: TestContext.Current.CancellationToken);
        var messages = new List<GenerateResponse>();
        await foreach (var message in call.ResponseStream.ReadAllAsync(TestContext.Current.CancellationToken))
        {
            messages.Add(message);
        }
        return messages;
    }

    private async Task<byte[]> Read(string blobId)
    {
        using var call = memory.ReadBlob(new ReadBlobRequest { BlobId = blobId }, cancellationToken: TestContext.Current.CancellationToken);
        using var content = new MemoryStream();
        await foreach (var piece in call.ResponseStream.ReadAllAsync(TestContext.Current.CancellationToken))
        {
            Assert.Equal(content.Length, piece.OffsetBytes);
            piece.Data.WriteTo(content);
        }
        return content.ToArray();
    }
}
