using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Jobs;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Makes pictures of a prompt, with all that it leaves open chosen by the server.</summary>
    /// <param name="prompt">What to draw.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>.</returns>
    public RunningJob<GenerationResult> GenerateAsync(string prompt, CancellationToken cancellationToken = default) =>
        GenerateAsync(new Generation { Prompt = prompt }, cancellationToken);

    /// <summary>Makes pictures.</summary>
    /// <param name="generation">What to draw, and how.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>.</returns>
    public RunningJob<GenerationResult> GenerateAsync(Generation generation, CancellationToken cancellationToken = default) =>
        GenerateAsync(new GenerateRequest { Generation = generation }, cancellationToken);

    /// <summary>Makes pictures, with options of the job. The job is always detached; an empty <c>request_id</c> gets a new one.</summary>
    /// <param name="request">What to draw, and how the job is to be done. It is copied.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>. The server knows of it once the loop has begun.</returns>
    public RunningJob<GenerationResult> GenerateAsync(GenerateRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        var sent = request.Clone();
        sent.Detached = true;
        sent.RequestId = IdFor(sent.RequestId);
        var door = Door(sent.RequestId, call => new GenerateStream(Inference.Generate(sent, cancellationToken: call)));
        return new RunningJob<GenerationResult>(door, update => update.GenerationResult, cancellationToken);
    }

    /// <summary>Makes pictures and waits for them.</summary>
    /// <param name="generation">What to draw, and how.</param>
    /// <param name="progress">Told of each event. Null: nobody is.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The pictures; <see cref="ReadImageAsync"/> and <see cref="SaveImageAsync"/> get their files.</returns>
    /// <exception cref="JobFailedException">The job failed.</exception>
    /// <exception cref="JobCancelledException">The job was stopped.</exception>
    public Task<GenerationResult> GenerateAsync(Generation generation, IProgress<JobEvent>? progress, CancellationToken cancellationToken = default) =>
        GenerateAsync(generation, cancellationToken).WaitAsync(progress, CancellationToken.None);

    /// <summary>Makes pictures, with options of the job, and waits for them.</summary>
    /// <param name="request">What to draw, and how the job is to be done. It is copied.</param>
    /// <param name="progress">Told of each event. Null: nobody is.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The pictures; <see cref="ReadImageAsync"/> and <see cref="SaveImageAsync"/> get their files.</returns>
    /// <exception cref="JobFailedException">The job failed.</exception>
    /// <exception cref="JobCancelledException">The job was stopped.</exception>
    public Task<GenerationResult> GenerateAsync(GenerateRequest request, IProgress<JobEvent>? progress, CancellationToken cancellationToken = default) =>
        GenerateAsync(request, cancellationToken).WaitAsync(progress, CancellationToken.None);

    /// <summary>Runs any kind of work as a job. An empty <c>request_id</c> gets a new one.</summary>
    /// <param name="request">The work. It is copied.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job; its result is the last update, beside whose event the result lies.</returns>
    public RunningJob<WatchJobResponse> RunAsync(SubmitJobRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        return Submit(request.Clone(), update => update, cancellationToken);
    }

    /// <summary>Follows a job that was asked for elsewhere, or before this process started.</summary>
    /// <param name="jobId">The job.</param>
    /// <param name="afterSequence">Number of the last event that was seen. 0: all events.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job; its result is the last update, beside whose event the result lies.</returns>
    public RunningJob<WatchJobResponse> AttachAsync(string jobId, long afterSequence = 0, CancellationToken cancellationToken = default)
    {
        Check.NotEmpty(jobId, nameof(jobId));
        return new RunningJob<WatchJobResponse>(Door("", null), update => update, cancellationToken, jobId, afterSequence);
    }

    private RunningJob<TResult> Run<TResult>(JobSpec spec, JobOptions? jobOptions, Func<WatchJobResponse, TResult?> resultOf, CancellationToken token)
        where TResult : class => Submit(new SubmitJobRequest { Spec = spec, Options = jobOptions }.Clone(), resultOf, token);

    private RunningJob<TResult> Submit<TResult>(SubmitJobRequest request, Func<WatchJobResponse, TResult?> resultOf, CancellationToken token)
        where TResult : class
    {
        request.RequestId = IdFor(request.RequestId);
        return new RunningJob<TResult>(Door(request.RequestId, call => new SubmitStream(Processing, request, call)), resultOf, token);
    }

    private JobDoor Door(string requestId, Func<CancellationToken, UpdateStream>? first) => new(Processing, options, logger, requestId, first);

    private static string IdFor(string requestId) => requestId.Length > 0 ? requestId : Guid.NewGuid().ToString();
}
