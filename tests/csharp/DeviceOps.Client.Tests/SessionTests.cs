using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Sessions: their jobs, their stream of events, and many of them at a time.</summary>
public sealed class SessionTests(SharedServer server)
{
    private const int Parallel = 50;

    [Fact]
    public async Task AJobOfASessionIsCountedAndClosingEndsTheWatch()
    {
        await using var session = await server.Client.OpenSessionAsync(new SessionSettings { DisplayName = "tests" }, cancellationToken: Asking.Stop);
        var result = await session.GenerateAsync(Asking.Small(), Asking.Stop).WaitAsync(cancellationToken: Asking.Stop);
        Assert.Single(result.Images);

        var told = await session.GetAsync(Asking.Stop);
        Assert.Equal(("tests", 1L, 1L), (told.Settings.DisplayName, told.JobCounts.Succeeded, told.Usage.ImagesMade));

        Assert.Equal(SessionState.Closed, (await session.CloseAsync(cancellationToken: Asking.Stop)).State);
        var seen = new List<WatchSessionResponse>();
        await foreach (var message in session.WatchAsync(cancellationToken: Asking.Stop))
        {
            seen.Add(message);
        }
        Assert.Equal(SessionState.Closed, seen[^1].Session.State);
        Assert.Single(seen, message => message.JobUpdate?.Event.Terminal == true);
        Assert.Equal(seen.Select(message => message.SessionSequence).Order(), seen.Select(message => message.SessionSequence));
    }

    [Fact]
    public async Task EveryCallOfASessionWorks()
    {
        var requestId = Guid.NewGuid().ToString();
        await using var session = await server.Client.OpenSessionAsync(null, requestId, Asking.Stop);
        await using var same = await server.Client.OpenSessionAsync(null, requestId, Asking.Stop);
        Assert.Equal(session.Id, same.Id);

        Assert.Equal(SessionState.Paused, (await session.PauseAsync("lunch", Asking.Stop)).State);
        var job = await session.SubmitAsync(new SubmitJobRequest { Spec = new JobSpec { Generation = Asking.Small() } }, Asking.Stop);
        Assert.Equal((session.Id, JobState.Queued), (job.Options.SessionId, job.State));
        Assert.Equal(1, await session.CancelAsync("enough", Asking.Stop));
        Assert.Equal(SessionState.Open, (await session.ResumeAsync(cancellationToken: Asking.Stop)).State);

        var changed = await session.UpdateAsync(new SessionSettings { Weight = 2 }, ["weight"], cancellationToken: Asking.Stop);
        Assert.Equal(2, changed.Settings.Weight);
        var attached = server.Client.AttachSession(session.Id);
        await attached.DisposeAsync();
        Assert.Equal(SessionState.Open, (await attached.GetAsync(Asking.Stop)).State);

        var listed = await server.Client.Processing.ListSessionsAsync(new ListSessionsRequest { Filter = new SessionFilter { States = { SessionState.Open } } }, cancellationToken: Asking.Stop);
        Assert.Contains(listed.Sessions, one => one.Id == session.Id);
        await session.DisposeAsync();
        Assert.Equal(SessionState.Closed, (await attached.GetAsync(Asking.Stop)).State);
    }

    [Fact]
    public async Task AClosedSessionTakesNoJob()
    {
        var session = await server.Client.OpenSessionAsync(cancellationToken: Asking.Stop);
        await session.DisposeAsync();
        var refusal = await Assert.ThrowsAsync<DeviceOpsException>(() => session.GenerateAsync(Asking.Small(), Asking.Stop).WaitAsync(cancellationToken: Asking.Stop));
        Assert.Equal((ErrorReason.IllegalState, "options.session_id"), (refusal.Reason, refusal.Facts["field"]));
    }

    [Fact]
    public async Task FiftyClientsAtATimeEachGetTheirOwnPictureInTheirOwnSession()
    {
        var pictures = await Task.WhenAll(Enumerable.Range(1000, Parallel).Select(OwnPictureAsync));
        Assert.Equal(Parallel, pictures.Distinct().Count());
    }

    /// <summary>One client with one session, which sees its own job alone. Returns the hash of the picture.</summary>
    private async Task<string> OwnPictureAsync(int seed)
    {
        using var own = DeviceOpsClient.Connect(server.Address);
        await using var session = await own.OpenSessionAsync(cancellationToken: Asking.Stop);
        var job = session.GenerateAsync(Asking.Small(seed: seed), Asking.Stop);
        Asking.AssertWhole(await Asking.Collect(job));
        var image = Assert.Single(job.Result.Images);
        Assert.Equal(seed, image.Seed);
        Assert.NotEmpty(await own.ReadImageAsync(image, Asking.Stop));

        await session.CloseAsync(cancellationToken: Asking.Stop);
        var jobs = new HashSet<string>();
        await foreach (var message in session.WatchAsync(cancellationToken: Asking.Stop))
        {
            if (message.JobUpdate is { } update)
            {
                jobs.Add(update.Event.JobId);
            }
        }
        Assert.Equal([job.JobId], jobs);
        Assert.Equal(1, (await session.GetAsync(Asking.Stop)).JobCounts.Succeeded);
        return image.File.Sha256;
    }
}
