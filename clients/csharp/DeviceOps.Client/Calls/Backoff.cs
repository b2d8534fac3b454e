using System.Diagnostics;
using Grpc.Core;

namespace DeviceOps.Client.Calls;

/// <summary>The waits between attempts at a broken call: 50 ms, doubled up to 2 s, each shortened by up to a half at random.</summary>
internal sealed class Backoff
{
    private const double FirstMs = 50;
    private const double LongestMs = 2000;
    private static readonly Random Jitter = new();
    private int attempts;
    private long since = Stopwatch.GetTimestamp();

    /// <summary>The next wait.</summary>
    public TimeSpan Next()
    {
        var longest = Math.Min(LongestMs, FirstMs * Math.Pow(2, Math.Min(attempts++, 10)));
        lock (Jitter)
        {
            return TimeSpan.FromMilliseconds(longest * (1 - (Jitter.NextDouble() / 2)));
        }
    }

    /// <summary>Time since the last success.</summary>
    public TimeSpan Lasting => TimeSpan.FromSeconds(DeviceOpsTelemetry.SecondsSince(since));

    /// <summary>Whether there was a wait since the last success.</summary>
    public bool Waited => attempts > 0;

    /// <summary>Begins anew, after a success.</summary>
    public void Reset()
    {
        attempts = 0;
        since = Stopwatch.GetTimestamp();
    }

    /// <summary>
    /// Whether the connection or the server went away, so that the same call may succeed later. INTERNAL, UNKNOWN and CANCELLED are
    /// what gRPC makes of a connection that breaks within a call; the server's own failures of these codes name a reason.
    /// </summary>
    public static bool IsBreak(Exception error) => error switch
    {
        RpcException { StatusCode: StatusCode.Unavailable } => true,
        DeviceOpsException { ReasonName.Length: > 0 } => false,
        RpcException { StatusCode: StatusCode.Internal or StatusCode.Unknown or StatusCode.Cancelled } => true,
        IOException or OperationCanceledException => true,
        _ => false,
    };
}
