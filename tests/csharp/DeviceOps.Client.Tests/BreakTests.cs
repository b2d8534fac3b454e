using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Testing;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Testing;
using Xunit;

namespace DeviceOps.Client.Tests;

[Collection(MortalServer.Name)]
public sealed class BreakTests(MortalServer mortal, SharedServer shared)
{
    private readonly DeviceOpsTestServer server = mortal.Server;

    [Fact]
    public async Task AJobIsFollowedToItsEndAcrossACrashOfTheServer()
    {
        var job = server.Client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 20), Asking.Stop);
        var events = await CollectWith(job, JobEvent.KindOneofCase.Progress, () => server.RestartAsync(Asking.Stop));

        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.Contains(events, told => told.Started?.Attempt == 2);
        Assert.NotEmpty(await server.Client.ReadImageAsync(job.Result.Images[0], Asking.Stop));
    }

    [Fact]
    public async Task AJobIsFollowedToItsEndAcrossTheDeathOfItsWorker()
    {
        var job = server.Client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 20), Asking.Stop);
        var events = await CollectWith(job, JobEvent.KindOneofCase.Progress, () => server.KillWorkerAsync(MortalServer.Healthy, Asking.Stop));

        Asking.AssertWhole(events);
        Assert.Contains(events, told => told.Interrupted?.Reason == ErrorReason.WorkerRestarting);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
    }

    [Fact]
    public async Task ACutConnectionLosesNoEventAndIsLogged()
    {
        var logs = new FakeLogCollector();
        using var loggers = LoggerFactory.Create(logging => logging.AddProvider(new FakeLoggerProvider(logs)));
        await using var proxy = new CuttingProxy(shared.Address, cutAfterBytes: 2000, cuts: 3);
        using var client = DeviceOpsClient.Connect(new DeviceOpsClientOptions { Address = proxy.Address }, loggers);
        var job = client.GenerateAsync(Asking.Small(steps: 30), Asking.Stop);
        var events = await Asking.Collect(job);

        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.True(proxy.Cuts > 0, "no connection was cut");
        var logged = logs.GetSnapshot().Where(record => record.Category == "DeviceOps.Client").Select(record => record.Id.Id).ToList();
        Assert.Contains(1, logged);
        Assert.Contains(2, logged);
    }

    [Fact]
    public async Task ACallThatReadsIsSentAgainWhenItsConnectionBreaks()
    {
        await using var proxy = new CuttingProxy(shared.Address, cutAfterBytes: 1, cuts: 2);
        using var client = DeviceOpsClient.Connect(proxy.Address);
        var answer = await client.Models.GetModelAsync(new GetModelRequest { ModelId = "emoji-sd" }, cancellationToken: Asking.Stop);
        Assert.Equal("emoji-sd", answer.Model.Id);
        Assert.Equal(2, proxy.Cuts);
    }

    [Fact]
    public async Task BlobsGoUpAndDownAcrossCutConnections()
    {
        var bytes = new byte[5 << 20];
        new Random(1).NextBytes(bytes);
        await using var proxy = new CuttingProxy(shared.Address, cutAfterBytes: 3 << 20, cuts: 2);
        using var client = DeviceOpsClient.Connect(proxy.Address);

        var blob = await client.Blobs.UploadAsync(new MemoryStream(bytes), "application/octet-stream", Asking.Stop);
        Assert.Equal(bytes.Length, blob.SizeBytes);
        Assert.Equal(bytes, await client.Blobs.ReadBytesAsync(blob.Id, blob.Sha256, Asking.Stop));
        Assert.Equal(2, proxy.Cuts);
    }

    /// <summary>The job's events; after the first of a kind, something happens once.</summary>
    private static async Task<List<JobEvent>> CollectWith(IAsyncEnumerable<JobEvent> job, JobEvent.KindOneofCase at, Func<Task> happens)
    {
        var seen = new List<JobEvent>();
        var happened = false;
        await foreach (var told in job)
        {
            seen.Add(told);
            if (told.KindCase == at && !happened)
            {
                happened = true;
                await happens();
            }
        }
        Assert.True(happened);
        return seen;
    }
}
