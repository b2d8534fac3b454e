using DeviceOps.Api.Common.V1;
using DeviceOps.Testing;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>One server for the tests that kill it and its worker. Jobs of 50 steps and more run out of memory.</summary>
public sealed class MortalServer : IAsyncLifetime
{
    private const string Script = """
        [[device]]
        id = "sim-0"
        speed = 0.5

        [[device.fault]]
        kind = "out_of_memory"
        at_step = 50
        times = 0
        """;

    public DeviceOpsTestServer Server { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Server =
        await DeviceOpsTestServer.StartAsync(new DeviceOpsTestServerOptions { Script = Script }, Asking.Stop);

    public ValueTask DisposeAsync() => Server.DisposeAsync();
}

public sealed class BreakTests(MortalServer mortal, SharedServer shared) : IClassFixture<MortalServer>
{
    private readonly DeviceOpsTestServer server = mortal.Server;

    [Fact]
    public async Task AJobIsFollowedToItsEndAcrossACrashOfTheServer()
    {
        var job = server.Client.GenerateAsync(Asking.Small(steps: 40), Asking.Stop);
        var events = await CollectWith(job, JobEvent.KindOneofCase.Progress, () => server.RestartAsync(Asking.Stop));

        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.Contains(events, told => told.Started?.Attempt == 2);
        Assert.NotEmpty(await server.Client.ReadImageAsync(job.Result.Images[0], Asking.Stop));
    }

    [Fact]
    public async Task AJobIsFollowedToItsEndAcrossTheDeathOfItsWorker()
    {
        var job = server.Client.GenerateAsync(Asking.Small(steps: 40), Asking.Stop);
        var events = await CollectWith(job, JobEvent.KindOneofCase.Progress, () => server.KillWorkerAsync(cancellationToken: Asking.Stop));

        Asking.AssertWhole(events);
        Assert.Contains(events, told => told.KindCase == JobEvent.KindOneofCase.Interrupted);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
    }

    [Fact]
    public async Task AFailedJobIsATypedErrorAndTheNextOneWorks()
    {
        var job = server.Client.GenerateAsync(Asking.Small(steps: 50), Asking.Stop);
        var events = await Asking.Collect(job);

        Assert.Equal(JobEvent.KindOneofCase.Failed, events[^1].KindCase);
        var error = Assert.Throws<JobFailedException>(() => job.Result);
        Assert.Equal((ErrorReason.DeviceOutOfMemory, StatusCode.ResourceExhausted), (error.Reason, error.StatusCode));
        Assert.Equal(job.JobId, error.JobId);
        Assert.True(error.Facts.ContainsKey("needed_bytes"), error.Message);
        Assert.NotNull((await server.Client.GenerateAsync(Asking.Small(), null, Asking.Stop)).Images[0].File);
    }

    [Fact]
    public async Task ACutConnectionLosesNoEvent()
    {
        await using var proxy = new CuttingProxy(shared.Address, cutAfterBytes: 3000, cuts: 3);
        using var client = DeviceOpsClient.Connect(proxy.Address);
        var job = client.GenerateAsync(Asking.Small(steps: 40), Asking.Stop);
        var events = await Asking.Collect(job);

        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.True(proxy.Cuts > 0, "no connection was cut");
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
