using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Drawing;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Extensions.AI;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Testing;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>A program that knows Microsoft.Extensions.AI alone gets its pictures from this server.</summary>
public sealed class ImageGeneratorTests(SharedServer server)
{
    /// <summary>A mask of 64 × 64 pixels: white on the left, black on the right.</summary>
    private const string LeftHalf =
        "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAMUlEQVR42u3MsQ0AMAjAMOj/P8MHdGBhcNZIzoq5/PwXywAAAAAAAAAAAAAAAABcBxpgTAGAxlDsQwAAAABJRU5ErkJggg==";

    private static readonly ImageGenerationOptions Quick = new()
    {
        ImageSize = new Size(64, 64),
        AdditionalProperties = new() { [DeviceOpsImageProperties.Steps] = 1, [DeviceOpsImageProperties.Seed] = 7 },
    };

    [Fact]
    public async Task OptionsBecomeTheRequestAndPicturesComeAsData()
    {
        using var generator = server.Client.AsImageGenerator();
        var options = Quick.Clone();
        (options.Count, options.MediaType, options.ModelId) = (2, "image/webp", "emoji-sd");
        var response = await generator.GenerateAsync(new ImageGenerationRequest("a red apple"), options, Asking.Stop);

        var pictures = response.Contents.Cast<DataContent>().ToList();
        Assert.Equal(2, pictures.Count);
        Assert.All(pictures, picture => Assert.Equal("image/webp", picture.MediaType));
        Assert.Equal([7L, 8L], pictures.Select(picture => picture.AdditionalProperties![DeviceOpsImageProperties.Seed]));
        Assert.Equal((64, "emoji-sd"), (Raw(response).Resolved.Generation.WidthPx, Raw(response).Resolved.Generation.ModelId));
        Assert.Equal(2, response.Usage!.AdditionalCounts!["images"]);
    }

    [Fact]
    public async Task AHostedPictureIsTheIdOfItsBlob()
    {
        using var generator = server.Client.AsImageGenerator();
        var options = Quick.Clone();
        options.ResponseFormat = ImageGenerationResponseFormat.Hosted;
        var response = await generator.GenerateAsync(new ImageGenerationRequest("a red apple"), options, Asking.Stop);

        var hosted = Assert.IsType<HostedFileContent>(Assert.Single(response.Contents));
        Assert.Equal(hosted.SizeInBytes, (await server.Client.Blobs.ReadBytesAsync(hosted.FileId, null, Asking.Stop)).Length);
    }

    [Fact]
    public async Task AWholeRequestIsTheBeginningAndPreviewsAreReported()
    {
        using var generator = server.Client.AsImageGenerator();
        var seen = new Seen();
        var options = new ImageGenerationOptions
        {
            StreamingCount = 2,
            RawRepresentationFactory = _ => new GenerateRequest { Generation = Asking.Small(steps: 6), Options = new JobOptions { Priority = Priority.High } },
            AdditionalProperties = new() { [DeviceOpsImageProperties.Progress] = seen },
        };
        var response = await generator.GenerateAsync(new ImageGenerationRequest("a lemon"), options, Asking.Stop);

        Assert.Equal("a lemon", Raw(response).Resolved.Generation.Prompt);
        Assert.Equal(6, Raw(response).Resolved.Generation.Sampling.Steps);
        Assert.Contains(seen.Events, told => told.KindCase == JobEvent.KindOneofCase.Preview);
    }

    [Fact]
    public async Task AnUnknownPropertyIsRefusedWithThoseThereAre()
    {
        using var generator = server.Client.AsImageGenerator();
        var options = new ImageGenerationOptions { AdditionalProperties = new() { ["sed"] = 7 } };
        var error = await Assert.ThrowsAsync<ArgumentException>(() => generator.GenerateAsync(new ImageGenerationRequest("a"), options, Asking.Stop));
        Assert.Contains("'sed'", error.Message);
        Assert.Contains("seed", error.Message);
    }

    [Fact]
    public async Task AnEditStartsFromItsPictureWhicheverWayItIsGiven()
    {
        using var generator = server.Client.AsImageGenerator();
        var plain = Quick.Clone();
        plain.AdditionalProperties![DeviceOpsImageProperties.Steps] = 4;
        // The same bytes whatever other tests let the device compute meanwhile.
        plain.RawRepresentationFactory = _ => new Generation { Determinism = Determinism.Exact };
        var half = plain.Clone();
        half.AdditionalProperties![DeviceOpsImageProperties.Strength] = 0.5;
        var original = await Picture(generator, new ImageGenerationRequest("a red apple"), plain);
        var blob = await server.Client.Blobs.UploadAsync(new MemoryStream(original.Data.ToArray()), "image/png", Asking.Stop);

        var edited = await Picture(generator, new ImageGenerationRequest("a green apple", [original]), half);
        var hosted = await Picture(generator, new ImageGenerationRequest("a green apple", [new HostedFileContent(blob.Id)]), half);
        var fresh = await Picture(generator, new ImageGenerationRequest("a green apple"), plain);
        Assert.Equal(Pixels(edited), Pixels(hosted));
        Assert.NotEqual(Pixels(original), Pixels(edited));
        Assert.NotEqual(Pixels(fresh), Pixels(edited));

        half.AdditionalProperties[DeviceOpsImageProperties.Mask] = new DataContent(Convert.FromBase64String(LeftHalf), "image/png");
        var painted = await generator.GenerateAsync(new ImageGenerationRequest("a green apple", [original]), half, Asking.Stop);
        Assert.NotNull(Raw(painted).Resolved.Generation.Mask);
        Assert.NotEqual(Pixels(edited), Pixels(Assert.IsType<DataContent>(Assert.Single(painted.Contents))));
    }

    [Fact]
    public async Task WhatIsNoPictureIsRefusedByItsField()
    {
        using var generator = server.Client.AsImageGenerator();
        var error = await Assert.ThrowsAsync<DeviceOpsException>(
            () => generator.EditImageAsync(new DataContent(new byte[] { 1, 2, 3 }, "image/png"), "greener", Quick, Asking.Stop));
        Assert.Equal(ErrorReason.BadImage, error.Reason);
        Assert.Contains("init_image", error.Message);
    }

    [Fact]
    public async Task APipelineOfAHostWorksRoundIt()
    {
        var logs = new FakeLogCollector();
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "pictures",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        var services = new ServiceCollection().AddDeviceOpsClient(options => options.Address = server.Address);
        services.AddLogging(logging => logging.SetMinimumLevel(LogLevel.Trace).AddProvider(new FakeLoggerProvider(logs)));
        services.AddDeviceOpsImageGenerator("emoji-sd").UseLogging().UseOpenTelemetry(sourceName: "pictures").ConfigureOptions(options => options.Count = 2);
        await using var host = services.BuildServiceProvider();
        var generator = host.GetRequiredService<IImageGenerator>();

        var response = await generator.GenerateImagesAsync("a red apple", Quick, Asking.Stop);
        Assert.Equal(2, response.Contents.OfType<DataContent>().Count());
        Assert.Equal("deviceops", generator.GetRequiredService<ImageGeneratorMetadata>().ProviderName);
        Assert.Contains(spans, span => Equals(span.GetTagItem("gen_ai.provider.name"), "deviceops"));
        Assert.Contains(logs.GetSnapshot(), record => record.Category?.Contains("LoggingImageGenerator", StringComparison.Ordinal) == true);
    }

    /// <summary>The compressed pixels of a PNG: the chunks called IDAT. The others tell of the job.</summary>
    private static byte[] Pixels(DataContent png)
    {
        var (bytes, pixels) = (png.Data.ToArray(), new List<byte>());
        for (var at = 8; at < bytes.Length; at += 12 + BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(at)))
        {
            var size = BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(at));
            pixels.AddRange(bytes.AsSpan(at + 4, 4).SequenceEqual("IDAT"u8) ? bytes.AsSpan(at + 8, size) : []);
        }
        Assert.NotEmpty(pixels);
        return [.. pixels];
    }

    private static async Task<DataContent> Picture(IImageGenerator generator, ImageGenerationRequest request, ImageGenerationOptions options) =>
        Assert.IsType<DataContent>(Assert.Single((await generator.GenerateAsync(request, options, Asking.Stop)).Contents));

    private static GenerationResult Raw(ImageGenerationResponse response) => (GenerationResult)response.RawRepresentation!;

    private sealed class Seen : IProgress<JobEvent>
    {
        public List<JobEvent> Events { get; } = [];

        public void Report(JobEvent value) => Events.Add(value);
    }
}
