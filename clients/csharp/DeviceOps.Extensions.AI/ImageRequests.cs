using System.Globalization;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Client;
using Google.Protobuf;
using Microsoft.Extensions.AI;

namespace DeviceOps.Extensions.AI;

/// <summary>From a request of Microsoft.Extensions.AI to one of the contract.</summary>
internal static class ImageRequests
{
    /// <summary>Larger pictures go ahead as blobs.</summary>
    private const int MaxInlineBytes = 256 << 10;

    private static readonly Dictionary<string, Action<Generation, object>> Properties = new()
    {
        [DeviceOpsImageProperties.NegativePrompt] = (asked, value) => asked.NegativePrompt = Text(value),
        [DeviceOpsImageProperties.Seed] = (asked, value) => Sampling(asked).Seed = Convert.ToInt64(value, CultureInfo.InvariantCulture),
        [DeviceOpsImageProperties.Steps] = (asked, value) => Sampling(asked).Steps = Convert.ToInt32(value, CultureInfo.InvariantCulture),
        [DeviceOpsImageProperties.GuidanceScale] = (asked, value) => Sampling(asked).GuidanceScale = Convert.ToDouble(value, CultureInfo.InvariantCulture),
        [DeviceOpsImageProperties.Sampler] = (asked, value) => Sampling(asked).Sampler = Text(value),
        [DeviceOpsImageProperties.SigmaSchedule] = (asked, value) => Sampling(asked).SigmaSchedule = Text(value),
        [DeviceOpsImageProperties.Strength] = (asked, value) => Start(asked).Strength = Convert.ToDouble(value, CultureInfo.InvariantCulture),
        [DeviceOpsImageProperties.Mask] = (_, _) => { }, // goes ahead with the original pictures
        [DeviceOpsImageProperties.Progress] = (_, _) => { },
    };

    /// <summary>Everything but the original pictures.</summary>
    public static GenerateRequest From(IImageGenerator generator, ImageGenerationRequest request, ImageGenerationOptions? options, string? defaultModel)
    {
        var asked = options?.RawRepresentationFactory?.Invoke(generator) switch
        {
            null => new GenerateRequest(),
            GenerateRequest whole => whole.Clone(),
            Generation generation => new GenerateRequest { Generation = generation.Clone() },
            var other => throw new ArgumentException($"RawRepresentationFactory gave a {other.GetType()}: a GenerateRequest or a Generation is needed"),
        };
        asked.Generation ??= new Generation();
        asked.Generation.Prompt = request.Prompt ?? asked.Generation.Prompt;
        Apply(asked.Generation, options);
        if (asked.Generation.ModelId.Length == 0)
        {
            asked.Generation.ModelId = defaultModel ?? "";
        }
        return asked;
    }

    /// <summary>The first original is where the picture starts from; further ones are references. The mask belongs to the first.</summary>
    public static async Task AddImagesAsync(
        Generation asked, IEnumerable<AIContent>? originals, ImageGenerationOptions? options, DeviceOpsClient client, CancellationToken stop)
    {
        if (options?.AdditionalProperties?.TryGetValue(DeviceOpsImageProperties.Mask, out var mask) == true && mask is not null)
        {
            var content = mask as AIContent ?? throw new ArgumentException($"{DeviceOpsImageProperties.Mask} must be a DataContent or HostedFileContent");
            asked.Mask = new InpaintMask { Image = await InputAsync(content, client, stop).ConfigureAwait(false) };
        }
        foreach (var original in originals ?? [])
        {
            var image = await InputAsync(original, client, stop).ConfigureAwait(false);
            if (asked.InitImage?.Image is null)
            {
                Start(asked).Image = image;
            }
            else
            {
                asked.ReferenceImages.Add(new ReferenceImage { Image = image });
            }
        }
    }

    private static void Apply(Generation asked, ImageGenerationOptions? options)
    {
        if (options is null)
        {
            return;
        }
        asked.ModelId = options.ModelId ?? asked.ModelId;
        asked.ImageCount = options.Count ?? asked.ImageCount;
        if (options.ImageSize is { } size)
        {
            (asked.WidthPx, asked.HeightPx) = (size.Width, size.Height);
        }
        if (options.MediaType is { } mediaType)
        {
            (asked.Output ??= new EncodeOptions()).MediaType = mediaType;
        }
        foreach (var (name, value) in options.AdditionalProperties ?? [])
        {
            if (value is not null)
            {
                Setter(name)(asked, value);
            }
        }
        if (options.StreamingCount is > 0 and var count)
        {
            // Previews come as events; the steps are known only where the caller set them.
            asked.Previews ??= new PreviewOptions { EverySteps = Math.Max(1, (asked.Sampling?.Steps ?? 0) / (count + 1)) };
        }
    }

    private static Action<Generation, object> Setter(string name) => Properties.TryGetValue(name, out var set)
        ? set
        : throw new ArgumentException($"AdditionalProperties has '{name}'; known are {string.Join(", ", Properties.Keys.Order())}");

    private static async Task<ImageInput> InputAsync(AIContent content, DeviceOpsClient client, CancellationToken stop) => content switch
    {
        HostedFileContent hosted => new ImageInput { BlobId = hosted.FileId },
        DataContent data when data.Data.Length <= MaxInlineBytes => Inline(data),
        DataContent data => new ImageInput { BlobId = await UploadAsync(data, client, stop).ConfigureAwait(false) },
        _ => throw new ArgumentException($"a picture is given as a {content.GetType().Name}: DataContent or HostedFileContent is needed"),
    };

    private static async Task<string> UploadAsync(DataContent data, DeviceOpsClient client, CancellationToken stop)
    {
        using var bytes = new MemoryStream(data.Data.ToArray(), writable: false);
        return (await client.Blobs.UploadAsync(bytes, data.MediaType, stop).ConfigureAwait(false)).Id;
    }

    private static ImageInput Inline(DataContent data) => new() { Data = UnsafeByteOperations.UnsafeWrap(data.Data) };

    private static InitImage Start(Generation asked) => asked.InitImage ??= new InitImage();

    private static Sampling Sampling(Generation asked) => asked.Sampling ??= new Sampling();

    private static string Text(object value) => value as string ?? throw new ArgumentException($"'{value}' must be a string");
}
