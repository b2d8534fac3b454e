using System.Runtime.CompilerServices;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Jobs;

namespace DeviceOps.Client;

/// <summary>
/// A job of the server, to be followed with <c>await foreach</c> from its first event to its last. The job belongs to the server: a broken
/// connection, a dead worker and a restarted server lose no event, and leaving the loop does not stop the job. Cancelling the token does:
/// CancelJob is sent, the events go on until the server has proven the stop, then <see cref="JobCancelledException"/> is thrown.
/// </summary>
/// <typeparam name="TResult">What the job makes.</typeparam>
public sealed class RunningJob<TResult> : IAsyncEnumerable<JobEvent>
    where TResult : class
{
    private readonly JobDoor door;
    private readonly Func<WatchJobResponse, TResult?> resultOf;
    private readonly CancellationToken token;
    private readonly long afterSequence;
    private WatchJobResponse? last;

    internal RunningJob(JobDoor door, Func<WatchJobResponse, TResult?> resultOf, CancellationToken token, string jobId = "", long afterSequence = 0)
    {
        this.door = door;
        this.resultOf = resultOf;
        this.token = token;
        this.afterSequence = afterSequence;
        JobId = jobId;
    }

    /// <summary>The job's id; empty until the first event has come.</summary>
    public string JobId { get; private set; }

    /// <summary>The <c>request_id</c> of the job: the same request with the same id joins this job. Empty for a job that another caller asked
    /// for.</summary>
    public string RequestId => door.RequestId;

    /// <summary>Number of the newest event that was read: <see cref="DeviceOpsClient.AttachAsync"/> goes on after it.</summary>
    public long LastSequence { get; private set; }

    /// <summary>Whether the last event has been read.</summary>
    public bool Ended => last is not null;

    /// <summary>What the job made, also where only a part of it succeeded.</summary>
    /// <exception cref="JobFailedException">The job failed.</exception>
    /// <exception cref="JobCancelledException">The job was stopped.</exception>
    /// <exception cref="InvalidOperationException">The last event has not been read yet.</exception>
    public TResult Result => last?.Event.KindCase switch
    {
        null => throw new InvalidOperationException("The job has not ended yet: read its events to the end, or await WaitAsync."),
        JobEvent.KindOneofCase.Failed => throw new JobFailedException(JobId, last.Event.Failed),
        JobEvent.KindOneofCase.Cancelled => throw new JobCancelledException(JobId, last.Event.Cancelled, token),
        _ => resultOf(last) ?? throw new InvalidOperationException($"The job ended with {last.Event.KindCase} and no result that this package knows."),
    };

    /// <summary>The events, each once.</summary>
    /// <param name="cancellationToken">Stops the job, beside the token that the job was started with.</param>
    /// <returns>An enumerator of the events.</returns>
    public async IAsyncEnumerator<JobEvent> GetAsyncEnumerator(CancellationToken cancellationToken = default)
    {
        await foreach (var update in UpdatesAsync(cancellationToken).ConfigureAwait(false))
        {
            yield return update.Event;
        }
    }

    /// <summary>The events with what is ready beside them: pictures with <c>output_ready</c>, the result with the last.</summary>
    /// <param name="cancellationToken">Stops the job, beside the token that the job was started with.</param>
    /// <returns>The updates, each once.</returns>
    public async IAsyncEnumerable<WatchJobResponse> UpdatesAsync([EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        // A caller compares the exception's token with its own, so only two of them are joined.
        using var both = token.CanBeCanceled && cancellationToken.CanBeCanceled
            ? CancellationTokenSource.CreateLinkedTokenSource(token, cancellationToken)
            : null;
        var stop = both?.Token ?? (token.CanBeCanceled ? token : cancellationToken);
        var cursor = new JobCursor(door, JobId, afterSequence, stop);
        await using var leave = cursor.ConfigureAwait(false);
        while (await cursor.NextAsync().ConfigureAwait(false) is { } update)
        {
            JobId = cursor.JobId;
            LastSequence = cursor.Sequence;
            last = update.Event.Terminal ? update : last;
            yield return update;
        }
    }

    /// <summary>Reads the events to the end.</summary>
    /// <param name="progress">Told of each event. Null: nobody is.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>What the job made.</returns>
    /// <exception cref="JobFailedException">The job failed.</exception>
    /// <exception cref="JobCancelledException">The job was stopped.</exception>
    public async Task<TResult> WaitAsync(IProgress<JobEvent>? progress = null, CancellationToken cancellationToken = default)
    {
        await foreach (var update in UpdatesAsync(cancellationToken).ConfigureAwait(false))
        {
            progress?.Report(update.Event);
        }
        return Result;
    }
}
