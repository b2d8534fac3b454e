using System.Diagnostics.CodeAnalysis;
using DeviceOps.Client;
using DeviceOps.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;

namespace Microsoft.Extensions.AI;

/// <summary>From a client, or a host's services, to an <see cref="IImageGenerator"/>.</summary>
[Experimental("MEAI001")]
public static class DeviceOpsImageGeneratorExtensions
{
    /// <summary>The client as an image generator, for <c>AsBuilder()</c> pipelines with logging and OpenTelemetry.</summary>
    /// <param name="client">The client; the generator does not dispose of it.</param>
    /// <param name="defaultModelId">The model of requests that name none. Null: the server's default model.</param>
    /// <returns>The generator.</returns>
    public static IImageGenerator AsImageGenerator(this DeviceOpsClient client, string? defaultModelId = null) =>
        new DeviceOpsImageGenerator(client, defaultModelId);

    /// <summary>Adds an <see cref="IImageGenerator"/> over the <see cref="DeviceOpsClient"/> that <c>AddDeviceOpsClient</c> added.</summary>
    /// <param name="services">The host's services.</param>
    /// <param name="defaultModelId">The model of requests that name none. Null: the server's default model.</param>
    /// <returns>A builder, to put logging, OpenTelemetry or options round the generator.</returns>
    public static ImageGeneratorBuilder AddDeviceOpsImageGenerator(this IServiceCollection services, string? defaultModelId = null) =>
        services.AddImageGenerator(provider => provider.GetRequiredService<DeviceOpsClient>().AsImageGenerator(defaultModelId));
}
