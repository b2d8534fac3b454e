using DeviceOps.Api.Common.V1;
using Grpc.Core;

namespace DeviceOps.Client;

/// <summary>A job had started and failed: its last event is <see cref="JobFailed"/>.</summary>
public sealed class JobFailedException : DeviceOpsException
{
    internal JobFailedException(string jobId, JobFailed failed)
        : base(ErrorDetails.Of(failed.Failure), new Status((StatusCode)failed.Failure.StatusCode, failed.Failure.Message), [])
    {
        JobId = jobId;
        Failure = failed.Failure;
        Receipt = failed.Receipt;
    }

    /// <summary>The job.</summary>
    public string JobId { get; }

    /// <summary>Everything that the server says of it: root cause, what is affected, what was done about it.</summary>
    public Failure Failure { get; }

    /// <summary>What the job cost until then.</summary>
    public Receipt? Receipt { get; }
}
