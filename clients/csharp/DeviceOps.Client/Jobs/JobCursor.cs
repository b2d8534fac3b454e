using System.Diagnostics;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Calls;

namespace DeviceOps.Client.Jobs;

/// <summary>
/// One reader's position in a job's journal. It survives every break of the connection, of the worker and of the server, and turns the
/// reader's cancellation into CancelJob.
/// </summary>
internal sealed class JobCursor : IAsyncDisposable
{
    private readonly JobDoor door;
    private readonly Cancellation cancellation;
    private readonly Backoff backoff = new();
    private readonly long start = Stopwatch.GetTimestamp();
    private readonly Activity? activity;
    private bool reached;
    private CancellationTokenSource? silence;
    private UpdateStream? stream;
    private bool ended;

    public JobCursor(JobDoor door, string jobId, long afterSequence, CancellationToken token)
    {
        this.door = door;
        JobId = jobId;
        Sequence = afterSequence;
        cancellation = new Cancellation(door, token);
        cancellation.Know(jobId);
        activity = DeviceOpsTelemetry.Source.StartActivity("job");
    }

    /// <summary>The job; empty until the server has answered.</summary>
    public string JobId { get; private set; }

    /// <summary>Number of the last event that was seen.</summary>
    public long Sequence { get; private set; }

    /// <summary>The next update; null after the last.</summary>
    /// <exception cref="JobCancelledException">The reader's token was cancelled and the job has stopped, or did not confirm it in time.</exception>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    public async ValueTask<WatchJobResponse?> NextAsync()
    {
        while (!ended)
        {
            cancellation.ThrowIfOver(JobId);
            try
            {
                if (Accept(await ReadAsync().ConfigureAwait(false)) is { } update)
                {
                    return update;
                }
            }
            catch (Exception error) when (Backoff.IsBreak(error))
            {
                await RecoverAsync(error).ConfigureAwait(false);
            }
        }
        return cancellation.ThrowIfProven(JobId);
    }

    public ValueTask DisposeAsync()
    {
        Close();
        activity?.Dispose();
        return cancellation.DisposeAsync();
    }

    private Task<WatchJobResponse?> ReadAsync()
    {
        if (stream is null)
        {
            silence = new CancellationTokenSource();
            cancellation.Limits(silence);
            stream = door.Open(JobId, Sequence, silence.Token);
            if (reached)
            {
                DeviceOpsTelemetry.Reattachments.Add(1);
            }
        }
        silence!.CancelAfter(cancellation.Shortest(door.Options.SilenceTimeout));
        return stream.NextAsync(CancellationToken.None);
    }

    /// <summary>The update if it is new to the reader. A stream that ends before the job is a break.</summary>
    private WatchJobResponse? Accept(WatchJobResponse? update)
    {
        var told = update?.Event ?? throw new IOException("the server ended the watch before the job");
        if (JobId.Length == 0)
        {
            JobId = told.JobId;
            activity?.SetTag("deviceops.job_id", JobId);
            cancellation.Know(JobId);
        }
        if (reached && backoff.Waited)
        {
            Log.WatchGoesOn(door.Logger, JobId, Sequence);
        }
        reached = true;
        backoff.Reset();
        var isNew = told.KindCase == JobEvent.KindOneofCase.Heartbeat || told.Sequence > Sequence;
        Sequence = Math.Max(Sequence, told.Sequence);
        if (told.Terminal)
        {
            End(told);
        }
        return isNew ? update : null;
    }

    private void End(JobEvent last)
    {
        ended = true;
        cancellation.Proof = last.Cancelled;
        DeviceOpsTelemetry.JobDuration.Record(DeviceOpsTelemetry.SecondsSince(start), new KeyValuePair<string, object?>("deviceops.state", last.State.ToString()));
        activity?.SetTag("deviceops.state", last.State.ToString());
        Log.JobEnded(door.Logger, JobId, last.State);
        Close();
    }

    private async Task RecoverAsync(Exception error)
    {
        Close();
        cancellation.ThrowIfOver(JobId);
        if (!reached)
        {
            cancellation.ThrowIfAsked(JobId);
        }
        var limit = reached ? door.Options.ReconnectTimeout : door.Options.ConnectTimeout;
        if (backoff.Lasting > limit)
        {
            throw error as DeviceOpsException ?? Unreachable.Error(error, limit);
        }
        var delay = backoff.Next();
        Log.WatchBroke(door.Logger, JobId, Sequence, error.Message, delay.TotalMilliseconds);
        await Task.Delay(cancellation.Shortest(delay)).ConfigureAwait(false);
    }

    private void Close()
    {
        stream?.Dispose();
        stream = null;
        cancellation.Limits(null);
        silence?.Dispose();
        silence = null;
    }
}
