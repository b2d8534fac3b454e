using DeviceOps.Api.Common.V1;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client;

/// <summary>What the client logs.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Information, "Watch of job {JobId} broke after event {Sequence}: {Cause}. Attaching again in {Delay} ms.")]
    public static partial void WatchBroke(ILogger logger, string jobId, long sequence, string cause, double delay);

    [LoggerMessage(2, LogLevel.Information, "Watch of job {JobId} goes on after event {Sequence}.")]
    public static partial void WatchGoesOn(ILogger logger, string jobId, long sequence);

    [LoggerMessage(3, LogLevel.Debug, "Job {JobId} ended: {State}.")]
    public static partial void JobEnded(ILogger logger, string jobId, JobState state);

    [LoggerMessage(4, LogLevel.Debug, "Asking job {JobId} to stop.")]
    public static partial void Cancelling(ILogger logger, string jobId);

    [LoggerMessage(5, LogLevel.Warning, "Job {JobId} did not confirm its cancellation within {Timeout} s; it may go on.")]
    public static partial void CancellationUnconfirmed(ILogger logger, string jobId, double timeout);

    [LoggerMessage(6, LogLevel.Information, "Transfer of blob {BlobId} broke at byte {Offset}: {Cause}. Going on in {Delay} ms.")]
    public static partial void TransferBroke(ILogger logger, string blobId, long offset, string cause, double delay);

    [LoggerMessage(7, LogLevel.Warning, "Blob {BlobId} could not be deleted: {Cause}")]
    public static partial void DeleteFailed(ILogger logger, string blobId, string cause);

    [LoggerMessage(8, LogLevel.Warning, "Watch of session {SessionId} broke after event {Sequence} ({Cause}); it goes on in {Delay} ms.")]
    public static partial void SessionWatchBroke(ILogger logger, string sessionId, long sequence, string cause, double delay);
}
