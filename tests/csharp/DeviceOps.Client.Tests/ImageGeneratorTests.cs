using System.Drawing;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Extensions.AI;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>A program that knows Microsoft.Extensions.AI alone gets its pictures from this server.</summary>
public sealed class ImageGeneratorTests(SharedServer server)
{
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
    public async Task AnEditCarriesThePictureToTheServer()
    {
        using var generator = server.Client.AsImageGenerator();
        var original = new DataContent(new byte[] { 1, 2, 3 }, "image/png");
        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => generator.EditImageAsync(original, "greener", Quick, Asking.Stop));
        // Until the server takes input pictures it refuses the field by name; afterwards these bytes are no picture.
        Assert.Contains(error.Reason, new[] { ErrorReason.NotImplemented, ErrorReason.BadImage });
        Assert.Contains("init_image", error.Message);
    }

    [Fact]
    public async Task APipelineOfAHostWorksRoundIt()
    {
        var services = new ServiceCollection().AddLogging().AddDeviceOpsClient(options => options.Address = server.Address);
        services.AddDeviceOpsImageGenerator("emoji-sd").UseLogging().UseOpenTelemetry();
        await using var host = services.BuildServiceProvider();
        var generator = host.GetRequiredService<IImageGenerator>();

        var response = await generator.GenerateImagesAsync("a red apple", Quick, Asking.Stop);
        Assert.IsType<DataContent>(Assert.Single(response.Contents));
        Assert.Equal("deviceops", generator.GetRequiredService<ImageGeneratorMetadata>().ProviderName);
    }

    private static GenerationResult Raw(ImageGenerationResponse response) => (GenerationResult)response.RawRepresentation!;

    private sealed class Seen : IProgress<JobEvent>
    {
        public List<JobEvent> Events { get; } = [];

        public void Report(JobEvent value) => Events.Add(value);
    }
}
