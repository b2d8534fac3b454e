using Grpc.Core;

namespace DeviceOps.Client;

/// <summary>The error of a server that stays out of reach.</summary>
internal static class Unreachable
{
    public static DeviceOpsException Error(Exception cause, TimeSpan limit)
    {
        var status = new Status(StatusCode.Unavailable, $"the server was out of reach for {limit.TotalSeconds:0} s: {cause.Message}", cause);
        return new DeviceOpsException(new ErrorDetails(), status, []);
    }
}
