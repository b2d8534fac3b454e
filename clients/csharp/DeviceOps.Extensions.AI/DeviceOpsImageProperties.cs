using DeviceOps.Api.Common.V1;
using Microsoft.Extensions.AI;

namespace DeviceOps.Extensions.AI;

/// <summary>Names in <see cref="ImageGenerationOptions.AdditionalProperties"/> that the generator reads. Another name is refused, never ignored.</summary>
public static class DeviceOpsImageProperties
{
    /// <summary>What not to draw: a string.</summary>
    public const string NegativePrompt = "negative_prompt";

    /// <summary>Start of the noise: a whole number from 0. On a result: the seed that makes this picture again.</summary>
    public const string Seed = "seed";

    /// <summary>Denoising steps: a whole number.</summary>
    public const string Steps = "steps";

    /// <summary>How strongly the prompt is followed: a number.</summary>
    public const string GuidanceScale = "guidance_scale";

    /// <summary>A sampler's id: a string.</summary>
    public const string Sampler = "sampler";

    /// <summary>The noise levels, by id: a string.</summary>
    public const string SigmaSchedule = "sigma_schedule";

    /// <summary>Of an edit, how much of the original is made anew, 0..1: a number.</summary>
    public const string Strength = "strength";

    /// <summary>Of an edit, which part of the first original is made anew: a <see cref="DataContent"/> or
    /// <see cref="HostedFileContent"/> with white where it is.</summary>
    public const string Mask = "mask";

    /// <summary>Told of each event, previews too: an <see cref="IProgress{T}"/> of <see cref="JobEvent"/>.</summary>
    public const string Progress = "progress";

    internal static IProgress<JobEvent>? ProgressOf(ImageGenerationOptions? options) =>
        options?.AdditionalProperties?.TryGetValue(Progress, out var found) == true
            ? found as IProgress<JobEvent> ?? throw new ArgumentException($"{Progress} must be an IProgress<JobEvent>")
            : null;
}
