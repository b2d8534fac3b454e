using System.Diagnostics.CodeAnalysis;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Asks a job to stand still, with its progress kept on disk; its device is free for others. A loop that follows it goes on.</summary>
    /// <param name="jobId">The job.</param>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The job: PAUSING, or PAUSED if it had not started.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Job> PauseJobAsync(string jobId, string cause = "", CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(jobId, nameof(jobId));
        var request = new PauseJobRequest { JobId = jobId, Cause = cause };
        return (await Processing.PauseJobAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Job;
    }

    /// <summary>Lets a paused or interrupted job go on from its checkpoint.</summary>
    /// <param name="jobId">The job.</param>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The job: QUEUED, or RUNNING already.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Job> ResumeJobAsync(string jobId, string cause = "", CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(jobId, nameof(jobId));
        var request = new ResumeJobRequest { JobId = jobId, Cause = cause };
        return (await Processing.ResumeJobAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Job;
    }

    /// <summary>Asks a job to stop. Its followers see its end; to wait for the proof, cancel the token of the loop that follows it.</summary>
    /// <param name="jobId">The job.</param>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The job: CANCELLING, or CANCELLED if it had not started.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Job> CancelJobAsync(string jobId, string cause = "", CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(jobId, nameof(jobId));
        var request = new CancelJobRequest { JobId = jobId, Cause = cause };
        return (await Processing.CancelJobAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Job;
    }

    /// <summary>Makes pictures from where another job stands: the steps that its checkpoint holds are not done again. That job stays as it is.</summary>
    /// <param name="jobId">A generation that is paused, interrupted, failed, cancelled or succeeded in part.</param>
    /// <param name="branch">What is to be different from there on: prompts, guidance, LoRAs, previews, output. What it leaves open is as in
    /// that job. Null: nothing is different.</param>
    /// <param name="jobOptions">Devices, priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the new job.</param>
    /// <returns>The new job, to be followed with <c>await foreach</c>.</returns>
    /// <remarks>Experimental: which fields may differ may still change with the contract.</remarks>
    [Experimental("DEVICEOPS002")]
    public RunningJob<GenerationResult> ContinueAsync(
        string jobId, Generation? branch = null, JobOptions? jobOptions = null, CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(jobId, nameof(jobId));
        var request = new SubmitJobRequest { ContinueJobId = jobId, Options = jobOptions };
        if (branch is not null)
        {
            request.Spec = new JobSpec { Generation = branch };
        }
        return Submit(request.Clone(), update => update.GenerationResult, cancellationToken);
    }
}
