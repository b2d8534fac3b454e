using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Google.Rpc;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Contract.Tests;

public sealed class PictureRequestTests(RunningServer server) : IClassFixture<RunningServer>
{
    private readonly InferenceService.InferenceServiceClient inference = new(server.Channel);
    private readonly ProcessingService.ProcessingServiceClient processing = new(server.Channel);

    public static TheoryData<string> Names => [.. PictureRequests.All.Keys];

    /// <summary>A request is taken as it is, or refused by the name of each field that stands against it; nothing is dropped.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public async Task EachIsTakenOrRefusedByName(string name)
    {
        var asked = new SubmitJobRequest { Spec = new JobSpec { Generation = PictureRequests.All[name] }, ValidateOnly = true };

        var checkedNow = await processing.SubmitJobAsync(asked, cancellationToken: TestContext.Current.CancellationToken);

        Assert.All(checkedNow.Findings.Where(finding => finding.Severity >= Severity.Error), finding =>
        {
            Assert.NotEqual(ErrorReason.Unspecified, finding.Reason);
            Assert.NotEqual(ErrorReason.InvariantBroken, finding.Reason);
            Assert.NotEmpty(finding.Message);
            Assert.True(finding.Field.Length > 0 || finding.Reason is not ErrorReason.NotImplemented, finding.Message);
        });
    }

    [Fact]
    public async Task WhatAResultSaysOfItsRequestCanBeSentAgain()
    {
        var asked = new Generation
        {
            Prompt = "a red apple",
            ImageCount = 2,
            WidthPx = 128,
            HeightPx = 128,
            Sampling = new Sampling { Steps = 4 },
            Output = new EncodeOptions { MediaType = "image/jpeg", Quality = 80 },
            Determinism = Determinism.Exact, // whatever other tests let the device compute meanwhile
        };

        var first = await ResultOf(asked);
        var again = await ResultOf(first.Resolved.Generation);

        Assert.Equal(first.Resolved.Generation, again.Resolved.Generation);
        Assert.Equal(first.Images.Select(image => image.File.Sha256), again.Images.Select(image => image.File.Sha256));
    }

    private async Task<GenerationResult> ResultOf(Generation generation)
    {
        var request = new GenerateRequest { Generation = generation, Detached = true, RequestId = Guid.NewGuid().ToString() };
        using var call = inference.Generate(request, cancellationToken: TestContext.Current.CancellationToken);
        GenerateResponse? last = null;
        await foreach (var message in call.ResponseStream.ReadAllAsync(TestContext.Current.CancellationToken))
        {
            last = message;
        }
        Assert.NotNull(last);
        Assert.True(last.Event.Terminal, last.Event.ToString());
        return last.Result;
    }
}
