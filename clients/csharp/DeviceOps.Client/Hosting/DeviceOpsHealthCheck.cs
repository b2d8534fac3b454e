using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using Grpc.Core;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace DeviceOps.Client;

/// <summary>Asks the server how it is: healthy if every domain is READY, degraded if one is not, unhealthy (or what the registration
/// says) if the server cannot be reached, shuts down, or cannot make pictures.</summary>
/// <param name="client">The client of the server.</param>
public sealed class DeviceOpsHealthCheck(DeviceOpsClient client) : IHealthCheck
{
    /// <inheritdoc/>
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        try
        {
            var answer = await client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: cancellationToken)
                .ResponseAsync.ConfigureAwait(false);
            return Judge(answer.Status, context.Registration.FailureStatus);
        }
        catch (RpcException error)
        {
            cancellationToken.ThrowIfCancellationRequested();
            return new HealthCheckResult(context.Registration.FailureStatus, error.Status.Detail, error);
        }
    }

    /// <summary>A method that is not built yet makes no domain less ready: readiness alone counts.</summary>
    private static HealthCheckResult Judge(SystemStatus status, HealthStatus failure)
    {
        var unready = status.Domains.Where(domain => domain.Readiness != Readiness.Ready).ToList();
        var data = status.Domains.ToDictionary(domain => domain.Domain.ToString(), domain => (object)domain.Readiness.ToString());
        data["mode"] = status.Mode.ToString();
        data["server_version"] = status.ServerVersion;
        data["server_instance_id"] = status.ServerInstanceId;
        var description = string.Join("; ", unready.Select(domain => $"{domain.Domain} is {domain.Readiness}: {domain.Detail}"));
        var stopped = status.Mode == SystemMode.Draining
            || unready.Any(domain => domain.Domain == Domain.Inference && domain.Readiness is Readiness.Unavailable or Readiness.Stopping);
        var verdict = stopped ? failure : unready.Count > 0 ? HealthStatus.Degraded : HealthStatus.Healthy;
        return new HealthCheckResult(verdict, description, data: data);
    }
}
