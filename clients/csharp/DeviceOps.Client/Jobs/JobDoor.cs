using DeviceOps.Api.Processing.V1;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client.Jobs;

/// <summary>How to start following a job, and what following needs. The first call is repeated with the same <c>request_id</c> until the
/// job's id is known; from then on WatchJob goes on after the last event.</summary>
internal sealed class JobDoor(
    ProcessingService.ProcessingServiceClient processing,
    DeviceOpsClientOptions options,
    ILogger logger,
    string requestId,
    Func<CancellationToken, UpdateStream>? first)
{
    public ProcessingService.ProcessingServiceClient Processing { get; } = processing;

    public DeviceOpsClientOptions Options { get; } = options;

    public ILogger Logger { get; } = logger;

    public string RequestId { get; } = requestId;

    /// <summary>Opens the call that tells of the job from an event on.</summary>
    public UpdateStream Open(string jobId, long afterSequence, CancellationToken call) => jobId.Length == 0
        ? first!(call)
        : new WatchStream(Processing.WatchJob(new WatchJobRequest { JobId = jobId, AfterSequence = afterSequence }, cancellationToken: call));
}
