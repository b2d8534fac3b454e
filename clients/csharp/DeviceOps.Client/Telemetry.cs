using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace DeviceOps.Client;

/// <summary>Names under which the client reports spans and metrics, for <c>AddSource</c> and <c>AddMeter</c> of OpenTelemetry.</summary>
public static class DeviceOpsTelemetry
{
    /// <summary>Name of the <see cref="ActivitySource"/>: one span a call, and one for each job that is followed.</summary>
    public const string ActivitySourceName = "DeviceOps.Client";

    /// <summary>
    /// Name of the <see cref="Meter"/>: <c>deviceops.client.call.duration</c> (s), <c>deviceops.client.job.duration</c> (s),
    /// <c>deviceops.client.reattachments</c> and <c>deviceops.client.blob.transferred</c> (bytes).
    /// </summary>
    public const string MeterName = "DeviceOps.Client";

    internal static readonly ActivitySource Source = new(ActivitySourceName);
    private static readonly Meter Meter = new(MeterName);

    internal static readonly Histogram<double> CallDuration =
        Meter.CreateHistogram<double>("deviceops.client.call.duration", "s", "Time of a call, from its start to its status.");

    internal static readonly Histogram<double> JobDuration =
        Meter.CreateHistogram<double>("deviceops.client.job.duration", "s", "Time from asking for a job to its ending event.");

    internal static readonly Counter<long> Reattachments =
        Meter.CreateCounter<long>("deviceops.client.reattachments", "{call}", "Watches that were taken up again after a break.");

    internal static readonly Counter<long> BlobBytes =
        Meter.CreateCounter<long>("deviceops.client.blob.transferred", "By", "Bytes of blobs that were sent or received.");

    internal static double SecondsSince(long startTimestamp) =>
        (Stopwatch.GetTimestamp() - startTimestamp) / (double)Stopwatch.Frequency;
}
