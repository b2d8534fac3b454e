using DeviceOps.Client;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Puts a client among a host's services.</summary>
public static class DeviceOpsServiceCollectionExtensions
{
    /// <summary>Adds one <see cref="DeviceOpsClient"/>, with options bound from configuration and checked at its first use.</summary>
    /// <param name="services">The host's services.</param>
    /// <param name="section">Holds the options by their names: <c>Address</c>, <c>ConnectTimeout</c> …</param>
    /// <returns>The same services.</returns>
    public static IServiceCollection AddDeviceOpsClient(this IServiceCollection services, IConfigurationSection section)
    {
        services.AddOptions<DeviceOpsClientOptions>().Bind(section);
        return services.AddDeviceOpsClient();
    }

    /// <summary>Adds one <see cref="DeviceOpsClient"/>, with options set in code.</summary>
    /// <param name="services">The host's services.</param>
    /// <param name="configure">Sets the options. Null: the defaults, or what was configured before.</param>
    /// <returns>The same services.</returns>
    public static IServiceCollection AddDeviceOpsClient(this IServiceCollection services, Action<DeviceOpsClientOptions>? configure = null)
    {
        var options = services.AddOptions<DeviceOpsClientOptions>();
        if (configure is not null)
        {
            options.Configure(configure);
        }
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<DeviceOpsClientOptions>, OptionsProblem>());
        services.TryAddSingleton(provider => DeviceOpsClient.Connect(
            provider.GetRequiredService<IOptions<DeviceOpsClientOptions>>().Value, provider.GetService<ILoggerFactory>()));
        return services;
    }

    /// <summary>Adds a health check of the server: healthy while each of its domains is ready.</summary>
    /// <param name="builder">The host's health checks.</param>
    /// <param name="name">Name of the check.</param>
    /// <param name="tags">Tags of the check. Null: none.</param>
    /// <returns>The same health checks.</returns>
    public static IHealthChecksBuilder AddDeviceOps(this IHealthChecksBuilder builder, string name = "deviceops", IEnumerable<string>? tags = null) =>
        builder.Add(new HealthCheckRegistration(
            name, provider => new DeviceOpsHealthCheck(provider.GetRequiredService<DeviceOpsClient>()), failureStatus: null, tags));

    private sealed class OptionsProblem : IValidateOptions<DeviceOpsClientOptions>
    {
        public ValidateOptionsResult Validate(string? name, DeviceOpsClientOptions options) =>
            options.Problem() is { } problem ? ValidateOptionsResult.Fail(problem) : ValidateOptionsResult.Success;
    }
}
