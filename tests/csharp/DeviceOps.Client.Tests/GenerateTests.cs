using System.Security.Cryptography;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

public sealed class GenerateTests(SharedServer server)
{
    private readonly DeviceOpsClient client = server.Client;

    [Fact]
    public async Task FollowsAJobFromItsFirstEventToItsResult()
    {
        var job = client.GenerateAsync(Asking.Small(steps: 4), Asking.Stop);
        var events = await Asking.Collect(job);

        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Queued, events[0].KindCase);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.Equal(job.JobId, events[0].JobId);
        Assert.Equal(job.LastSequence, events[^1].Sequence);
        Assert.Equal(7, Assert.Single(job.Result.Images).Seed);
    }

    [Fact]
    public async Task ReadsAPictureAsBytesStreamAndFileInOneCallEach()
    {
        var result = await client.GenerateAsync(Asking.Small(), progress: null, Asking.Stop);
        var image = result.Images[0];

        var bytes = await client.ReadImageAsync(image, Asking.Stop);
        Assert.Equal(image.File.Sha256, Convert.ToHexStringLower(SHA256.HashData(bytes)));
        await using var stream = client.OpenImage(image);
        using var copy = new MemoryStream();
        await stream.CopyToAsync(copy, Asking.Stop);
        Assert.Equal(bytes, copy.ToArray());
        var path = Path.Combine(Path.GetTempPath(), $"{Guid.NewGuid():N}.png");
        try
        {
            await client.SaveImageAsync(image, path, Asking.Stop);
            Assert.Equal(bytes, await File.ReadAllBytesAsync(path, Asking.Stop));
            Assert.Empty(Directory.GetFiles(Path.GetTempPath(), Path.GetFileName(path) + ".*.part"));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public async Task ReportsProgressAndReturnsTheResult()
    {
        var seen = new Seen();
        var result = await client.GenerateAsync(Asking.Small(steps: 3), seen, Asking.Stop);

        Asking.AssertWhole(seen.Events);
        Assert.NotNull(result.Images[0].File);
        Assert.Equal(3, result.Resolved.Generation.Sampling.Steps);
    }

    [Fact]
    public async Task TheSameRequestIdJoinsTheSameJob()
    {
        var request = new GenerateRequest { Generation = Asking.Small(), RequestId = Guid.NewGuid().ToString() };
        var first = client.GenerateAsync(request, Asking.Stop);
        var second = client.GenerateAsync(request, Asking.Stop);
        await Task.WhenAll(first.WaitAsync(cancellationToken: Asking.Stop), second.WaitAsync(cancellationToken: Asking.Stop));

        Assert.Equal(first.JobId, second.JobId);
        Assert.Equal(first.Result, second.Result);
    }

    [Fact]
    public async Task LeavingTheLoopLeavesTheJobRunningAndAttachingGoesOnAfterTheLastEvent()
    {
        var job = client.GenerateAsync(Asking.Small(steps: 6), Asking.Stop);
        await foreach (var told in job)
        {
            break;
        }
        var rest = client.AttachAsync(job.JobId, job.LastSequence, Asking.Stop);
        var events = await Asking.Collect(rest);

        Assert.All(events, told => Assert.True(told.Sequence > 1 || told.KindCase == JobEvent.KindOneofCase.Heartbeat));
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.Single(rest.Result.GenerationResult.Images);
    }

    [Fact]
    public async Task CancellingStopsTheJobAndBringsTheProof()
    {
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(Asking.Stop);
        var job = client.GenerateAsync(Asking.Small(steps: 1000), cancel.Token);
        var events = new List<JobEvent>();
        var error = await Assert.ThrowsAsync<JobCancelledException>(async () =>
        {
            await foreach (var told in job)
            {
                events.Add(told);
                if (told.KindCase == JobEvent.KindOneofCase.Progress)
                {
                    await cancel.CancelAsync();
                }
            }
        });

        Assert.Equal(JobEvent.KindOneofCase.Cancelled, events[^1].KindCase);
        Assert.Equal(events[^1].Cancelled, error.Proof);
        Assert.Equal((job.JobId, cancel.Token), (error.JobId, error.CancellationToken));
        Assert.True(error.Proof!.Latency.ToTimeSpan() < TimeSpan.FromSeconds(10));
        var stored = await client.Processing.GetJobAsync(new GetJobRequest { JobId = job.JobId }, cancellationToken: Asking.Stop);
        Assert.Equal(JobState.Cancelled, stored.Job.State);
        Assert.Throws<JobCancelledException>(() => job.Result);
    }

    [Fact]
    public async Task ACancelledTokenStartsNothing()
    {
        var request = new GenerateRequest { Generation = Asking.Small(), RequestId = Guid.NewGuid().ToString() };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => client.GenerateAsync(request, null, new CancellationToken(true)));

        var filter = new JobFilter { RequestId = request.RequestId };
        var jobs = await client.Processing.ListJobsAsync(new ListJobsRequest { Filter = filter }, cancellationToken: Asking.Stop);
        Assert.Empty(jobs.Jobs);
    }

    [Fact]
    public void AResultBeforeTheEndIsRefused() =>
        Assert.Throws<InvalidOperationException>(() => client.GenerateAsync(Asking.Small(), Asking.Stop).Result);

    private sealed class Seen : IProgress<JobEvent>
    {
        public List<JobEvent> Events { get; } = [];

        public void Report(JobEvent value) => Events.Add(value);
    }
}
