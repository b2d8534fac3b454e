using DeviceOps.Api.Common.V1;

namespace DeviceOps.Client;

/// <summary>A job was stopped on request. <see cref="Proof"/> is what the server says of its stop.</summary>
public sealed class JobCancelledException : OperationCanceledException
{
    internal JobCancelledException(string jobId, JobCancelled? proof, CancellationToken token)
        : base(Text(jobId, proof), token)
    {
        JobId = jobId;
        Proof = proof;
    }

    /// <summary>The job. Empty: it was cancelled before the server had answered with its id.</summary>
    public string JobId { get; }

    /// <summary>The stage that the job had reached, the time that the stop took, and the memory that was given back. Null: the server
    /// did not confirm the stop in time (<see cref="DeviceOpsClientOptions.CancelTimeout"/>), so the job may go on.</summary>
    public JobCancelled? Proof { get; }

    private static string Text(string jobId, JobCancelled? proof) => proof is null
        ? $"The job {jobId} was asked to stop; the server has not confirmed it."
        : $"The job {jobId} was stopped in stage {proof.Stage}, {proof.Latency?.ToTimeSpan().TotalMilliseconds ?? 0:0} ms after the request.";
}
