using System.Diagnostics;
using Grpc.Core;

namespace DeviceOps.Client.Calls;

/// <summary>Span and time of one call. It ends once, whatever comes first: the status or the caller's leaving.</summary>
internal sealed class CallWatch
{
    private readonly Activity? activity;
    private readonly IMethod method;
    private readonly long start = Stopwatch.GetTimestamp();
    private int ended;

    private CallWatch(IMethod method)
    {
        this.method = method;
        activity = DeviceOpsTelemetry.Source.StartActivity($"{method.ServiceName}/{method.Name}", ActivityKind.Client);
        activity?.SetTag("rpc.system", "grpc").SetTag("rpc.service", method.ServiceName).SetTag("rpc.method", method.Name);
    }

    public static CallWatch Start(IMethod method) => new(method);

    /// <summary>Ends the watch with a status.</summary>
    public void End(StatusCode code, Exception? error = null)
    {
        if (Interlocked.Exchange(ref ended, 1) == 1)
        {
            return;
        }
        if (DeviceOpsTelemetry.CallDuration.Enabled)
        {
            DeviceOpsTelemetry.CallDuration.Record(
                DeviceOpsTelemetry.SecondsSince(start),
                new("rpc.service", method.ServiceName), new("rpc.method", method.Name), new("rpc.grpc.status_code", (int)code));
        }
        activity?.SetTag("rpc.grpc.status_code", (int)code);
        if (error is not null)
        {
            activity?.SetStatus(ActivityStatusCode.Error, error.Message);
        }
        activity?.Dispose();
    }

    /// <summary>Ends the watch with an error, and gives it its type.</summary>
    public DeviceOpsException Failed(RpcException error)
    {
        var typed = error as DeviceOpsException ?? new DeviceOpsException(ErrorDetails.Of(error), error.Status, error.Trailers);
        End(error.StatusCode, typed);
        return typed;
    }
}
