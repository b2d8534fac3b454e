using System.Diagnostics.CodeAnalysis;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Client;
using Microsoft.Extensions.AI;

namespace DeviceOps.Extensions.AI;

/// <summary>
/// Makes pictures on a DeviceOps server for code that knows <see cref="IImageGenerator"/>. <see cref="ImageGenerationOptions"/> give count,
/// size, media type, model and response format; <see cref="ImageGenerationOptions.AdditionalProperties"/> the names of
/// <see cref="DeviceOpsImageProperties"/>; <see cref="ImageGenerationOptions.RawRepresentationFactory"/> a whole
/// <see cref="GenerateRequest"/> to begin with. Cancelling stops the job and waits for the server's proof.
/// </summary>
[Experimental("MEAI001")]
public sealed class DeviceOpsImageGenerator : IImageGenerator
{
    private readonly DeviceOpsClient client;
    private readonly bool owns;
    private readonly ImageGeneratorMetadata metadata;

    /// <summary>Makes a generator over a client.</summary>
    /// <param name="client">The client of the server.</param>
    /// <param name="defaultModelId">The model of requests that name none. Null: the server's default model.</param>
    /// <param name="ownsClient">Whether to dispose of the client with the generator.</param>
    public DeviceOpsImageGenerator(DeviceOpsClient client, string? defaultModelId = null, bool ownsClient = false)
    {
        ArgumentNullException.ThrowIfNull(client);
        this.client = client;
        owns = ownsClient;
        metadata = new ImageGeneratorMetadata("deviceops", null, defaultModelId);
    }

    /// <inheritdoc/>
    /// <exception cref="DeviceOpsException">The server refused the request; it lists each field that is wrong.</exception>
    /// <exception cref="JobFailedException">The job had started and failed.</exception>
    /// <exception cref="JobCancelledException">The job was stopped.</exception>
    public async Task<ImageGenerationResponse> GenerateAsync(
        ImageGenerationRequest request, ImageGenerationOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        var asked = ImageRequests.From(this, request, options, metadata.DefaultModelId);
        await ImageRequests.AddImagesAsync(asked.Generation, request.OriginalImages, options, client, cancellationToken).ConfigureAwait(false);
        var job = client.GenerateAsync(asked, cancellationToken);
        var watcher = DeviceOpsImageProperties.ProgressOf(options);
        Receipt? receipt = null;
        await foreach (var told in job.ConfigureAwait(false))
        {
            watcher?.Report(told);
            receipt = told.Succeeded?.Receipt ?? told.PartiallySucceeded?.Receipt ?? receipt;
        }
        return await AnswerAsync(job, receipt, options?.ResponseFormat, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        if (serviceKey is not null)
        {
            return null;
        }
        return serviceType == typeof(ImageGeneratorMetadata) ? metadata
            : serviceType == typeof(DeviceOpsClient) ? client
            : serviceType.IsInstanceOfType(this) ? this : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (owns)
        {
            client.Dispose();
        }
    }

    private async Task<ImageGenerationResponse> AnswerAsync(
        RunningJob<GenerationResult> job, Receipt? receipt, ImageGenerationResponseFormat? format, CancellationToken stop)
    {
        var contents = new List<AIContent>();
        foreach (var image in job.Result.Images)
        {
            contents.Add(await ContentAsync(image, format, stop).ConfigureAwait(false));
        }
        return new ImageGenerationResponse(contents) { RawRepresentation = job.Result, Usage = UsageOf(job.Result, receipt) };
    }

    /// <summary>A picture's bytes, or with <see cref="ImageGenerationResponseFormat.Hosted"/> the id of its blob. A picture that failed or is
    /// withheld is an <see cref="ErrorContent"/>.</summary>
    private async Task<AIContent> ContentAsync(GeneratedImage image, ImageGenerationResponseFormat? format, CancellationToken stop)
    {
        AIContent content = (image.File, format) switch
        {
            (null, _) => new ErrorContent(image.Failure?.Message) { ErrorCode = image.Failure?.Reason.ToString() },
            (_, ImageGenerationResponseFormat.Hosted) =>
                new HostedFileContent(image.File.BlobId) { MediaType = image.File.MediaType, SizeInBytes = image.File.SizeBytes },
            _ => new DataContent(await client.ReadImageAsync(image, stop).ConfigureAwait(false), image.File.MediaType),
        };
        content.RawRepresentation = image;
        content.AdditionalProperties = new AdditionalPropertiesDictionary { [DeviceOpsImageProperties.Seed] = image.Seed };
        return content;
    }

    private static UsageDetails UsageOf(GenerationResult result, Receipt? receipt) => new()
    {
        AdditionalCounts = new AdditionalPropertiesDictionary<long>
        {
            ["images"] = result.Images.Count(image => image.File is not null),
            ["steps"] = receipt?.StepsExecuted ?? 0,
            ["run_milliseconds"] = (long)(receipt?.RunTime?.ToTimeSpan().TotalMilliseconds ?? 0),
        },
    };
}
