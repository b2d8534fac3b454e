using System.Diagnostics;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Calls;

namespace DeviceOps.Client.Jobs;

/// <summary>What a reader's token does: CancelJob, sent until the server has taken it, and a limit on the wait for the proof.</summary>
internal sealed class Cancellation : IAsyncDisposable
{
    private readonly JobDoor door;
    private readonly CancellationToken token;
    private readonly CancellationTokenRegistration registration;
    private readonly CancellationTokenSource disposed = new();
    private readonly object gate = new();
    private CancellationTokenSource? call;
    private Task sending = Task.CompletedTask;
    private string jobId = "";
    private long? asked;

    public Cancellation(JobDoor door, CancellationToken token)
    {
        token.ThrowIfCancellationRequested();
        this.door = door;
        this.token = token;
        registration = token.Register(Ask);
    }

    /// <summary>What the server says of the stop, from the job's last event.</summary>
    public JobCancelled? Proof { get; set; }

    /// <summary>The job to cancel; a cancellation that came before goes out now.</summary>
    public void Know(string id)
    {
        lock (gate)
        {
            jobId = id;
            SendOnce();
        }
    }

    /// <summary>The call that is cut if the proof does not come in time; null: none is open.</summary>
    public void Limits(CancellationTokenSource? open)
    {
        lock (gate)
        {
            call = open;
        }
    }

    /// <summary>A wait, cut at the time when the proof must be there.</summary>
    public TimeSpan Shortest(TimeSpan wait)
    {
        if (Left() is not { } left)
        {
            return wait;
        }
        return left < wait ? (left > TimeSpan.Zero ? left : TimeSpan.FromMilliseconds(1)) : wait;
    }

    /// <summary>Throws if the reader asked for the stop: no server has answered yet, so there is no job to wait for.</summary>
    public void ThrowIfAsked(string id)
    {
        if (token.IsCancellationRequested)
        {
            throw new JobCancelledException(id, null, token);
        }
    }

    /// <summary>Throws if the proof did not come in time.</summary>
    public void ThrowIfOver(string id)
    {
        if (Left() is { } left && left <= TimeSpan.Zero)
        {
            Log.CancellationUnconfirmed(door.Logger, id, door.Options.CancelTimeout.TotalSeconds);
            throw new JobCancelledException(id, null, token);
        }
    }

    /// <summary>Throws if this reader asked for the stop and the job ended by it; null otherwise.</summary>
    public WatchJobResponse? ThrowIfProven(string id) =>
        Proof is not null && token.IsCancellationRequested ? throw new JobCancelledException(id, Proof, token) : null;

    public async ValueTask DisposeAsync()
    {
        registration.Dispose();
        disposed.Cancel();
        await sending.ConfigureAwait(false);
        disposed.Dispose();
    }

    private void Ask()
    {
        lock (gate)
        {
            asked = Stopwatch.GetTimestamp();
            SendOnce();
            call?.CancelAfter(door.Options.CancelTimeout);
        }
    }

    private TimeSpan? Left()
    {
        lock (gate)
        {
            return asked is { } since ? door.Options.CancelTimeout - TimeSpan.FromSeconds(DeviceOpsTelemetry.SecondsSince(since)) : null;
        }
    }

    private void SendOnce()
    {
        if (asked is not null && jobId.Length > 0 && sending.IsCompleted)
        {
            Log.Cancelling(door.Logger, jobId);
            sending = Task.Run(() => SendAsync(jobId));
        }
    }

    /// <summary>Sends CancelJob until the server has taken it. A job that is over needs none.</summary>
    private async Task SendAsync(string id)
    {
        var backoff = new Backoff();
        while (!disposed.IsCancellationRequested)
        {
            try
            {
                await door.Processing.CancelJobAsync(new CancelJobRequest { JobId = id }, cancellationToken: disposed.Token).ResponseAsync.ConfigureAwait(false);
                return;
            }
            catch (Exception error) when (Backoff.IsBreak(error) && !disposed.IsCancellationRequested)
            {
                await Task.Delay(backoff.Next()).ConfigureAwait(false);
            }
            catch (Exception)
            {
                return;
            }
        }
    }
}
