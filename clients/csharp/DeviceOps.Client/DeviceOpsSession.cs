using System.Runtime.CompilerServices;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Calls;
using Google.Protobuf.WellKnownTypes;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client;

/// <summary>
/// A session of the server. Its jobs share its weight and its limits, and are paused, cancelled and followed together. The session belongs
/// to the server and survives its restarts. It is thread-safe.
/// </summary>
public sealed class DeviceOpsSession : IAsyncDisposable
{
    private readonly DeviceOpsClient client;
    private readonly DeviceOpsClientOptions options;
    private readonly ILogger logger;
    private int owned;

    internal DeviceOpsSession(DeviceOpsClient client, DeviceOpsClientOptions options, ILogger logger, string id, bool owned)
    {
        this.client = client;
        this.options = options;
        this.logger = logger;
        this.owned = owned ? 1 : 0;
        Id = id;
    }

    /// <summary>The session's id, for <c>JobOptions.session_id</c>.</summary>
    public string Id { get; }

    /// <summary>Makes pictures of a prompt in this session, with all that it leaves open chosen by the server.</summary>
    /// <param name="prompt">What to draw.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>.</returns>
    public RunningJob<GenerationResult> GenerateAsync(string prompt, CancellationToken cancellationToken = default) =>
        GenerateAsync(new Generation { Prompt = prompt }, cancellationToken);

    /// <summary>Makes pictures in this session.</summary>
    /// <param name="generation">What to draw, and how.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>.</returns>
    public RunningJob<GenerationResult> GenerateAsync(Generation generation, CancellationToken cancellationToken = default) =>
        GenerateAsync(new GenerateRequest { Generation = generation }, cancellationToken);

    /// <summary>Makes pictures in this session, with options of the job.</summary>
    /// <param name="request">What to draw, and how the job is to be done. It is copied.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job, to be followed with <c>await foreach</c>.</returns>
    public RunningJob<GenerationResult> GenerateAsync(GenerateRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        var sent = request.Clone();
        sent.Options = Mine(sent.Options);
        return client.GenerateAsync(sent, cancellationToken);
    }

    /// <summary>Runs any kind of work as a job of this session. An empty <c>request_id</c> gets a new one.</summary>
    /// <param name="request">The work. It is copied.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job; its result is the last update, beside whose event the result lies.</returns>
    public RunningJob<WatchJobResponse> RunAsync(SubmitJobRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        var sent = request.Clone();
        sent.Options = Mine(sent.Options);
        return client.RunAsync(sent, cancellationToken);
    }

    /// <summary>Submits work as a job of this session, without following it.</summary>
    /// <param name="request">The work. It is copied.</param>
    /// <param name="cancellationToken">Stops the call, not the job.</param>
    /// <returns>The job as it is stored.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Job> SubmitAsync(SubmitJobRequest request, CancellationToken cancellationToken = default)
    {
        Check.NotNull(request, nameof(request));
        var sent = request.Clone();
        sent.Options = Mine(sent.Options);
        var answer = await client.Processing.SubmitJobAsync(sent, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false);
        return answer.Job;
    }

    /// <summary>Reads the session's state, counts and use.</summary>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The session as it is now.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Session> GetAsync(CancellationToken cancellationToken = default)
    {
        var request = new GetSessionRequest { SessionId = Id };
        return (await client.Processing.GetSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Session;
    }

    /// <summary>Changes settings of the session.</summary>
    /// <param name="settings">The new values.</param>
    /// <param name="paths">Which of them to take: <c>display_name</c>, <c>weight</c>, <c>limits</c>, <c>labels</c>, <c>idle_timeout</c>.</param>
    /// <param name="etag">The etag of the session as it was last read. Empty: change it in any case.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The changed session.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Session> UpdateAsync(SessionSettings settings, IEnumerable<string> paths, string etag = "", CancellationToken cancellationToken = default)
    {
        Check.NotNull(settings, nameof(settings));
        Check.NotNull(paths, nameof(paths));
        var request = new UpdateSessionRequest
        {
            SessionId = Id,
            Settings = settings,
            UpdateMask = new FieldMask { Paths = { paths } },
            Etag = etag,
            RequestId = Guid.NewGuid().ToString(),
        };
        return (await client.Processing.UpdateSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Session;
    }

    /// <summary>Pauses the running jobs and starts no others.</summary>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The session after the request was noted.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Session> PauseAsync(string cause = "", CancellationToken cancellationToken = default)
    {
        var request = new PauseSessionRequest { SessionId = Id, Cause = cause };
        return (await client.Processing.PauseSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Session;
    }

    /// <summary>Lets the session go on, with the jobs that <see cref="PauseAsync"/> paused.</summary>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The session after the request was noted.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Session> ResumeAsync(string cause = "", CancellationToken cancellationToken = default)
    {
        var request = new ResumeSessionRequest { SessionId = Id, Cause = cause };
        return (await client.Processing.ResumeSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).Session;
    }

    /// <summary>Stops all jobs of the session; it stays open.</summary>
    /// <param name="cause">Why; comes back in the events.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>How many jobs were asked to stop.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<int> CancelAsync(string cause = "", CancellationToken cancellationToken = default)
    {
        var request = new CancelSessionRequest { SessionId = Id, Cause = cause };
        return (await client.Processing.CancelSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false)).CancellingCount;
    }

    /// <summary>Ends the session, and says what becomes of its jobs.</summary>
    /// <param name="action">What becomes of them. Not said: all run to their end.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The session: closing, or closed already if it had no jobs left.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<Session> CloseAsync(SessionCloseAction action = SessionCloseAction.Unspecified, CancellationToken cancellationToken = default)
    {
        var request = new CloseSessionRequest { SessionId = Id, Action = action };
        var answer = await client.Processing.CloseSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false);
        Interlocked.Exchange(ref owned, 0);
        return answer.Session;
    }

    /// <summary>Follows all jobs of the session, those that come later too, until it is closed. Breaks of the connection and restarts of the
    /// server lose no event and repeat none.</summary>
    /// <param name="afterSequence">The last <c>session_sequence</c> that was seen. 0: all events that are kept.</param>
    /// <param name="cancellationToken">Ends the watch; the jobs go on.</param>
    /// <returns>The messages, without heartbeats.</returns>
    /// <exception cref="DeviceOpsException">The server refused, or is out of reach for longer than the options allow.</exception>
    public async IAsyncEnumerable<WatchSessionResponse> WatchAsync(long afterSequence = 0, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        var cursor = new Sessions.SessionCursor(client.Processing, options, logger, Id, afterSequence);
        await using var leave = cursor.ConfigureAwait(false);
        while (await cursor.NextAsync(cancellationToken).ConfigureAwait(false) is { } message)
        {
            yield return message;
        }
    }

    /// <summary>Closes the session if this object opened it and it is not closed yet; its jobs come to their end.</summary>
    /// <returns>When the server has noted it.</returns>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref owned, 0) == 1)
        {
            await CloseAsync().ConfigureAwait(false);
        }
    }

    private JobOptions Mine(JobOptions? given)
    {
        var mine = given ?? new JobOptions();
        mine.SessionId = Id;
        return mine;
    }
}
