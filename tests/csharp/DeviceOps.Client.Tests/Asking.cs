using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Requests that several tests make.</summary>
internal static class Asking
{
    public static CancellationToken Stop => TestContext.Current.CancellationToken;

    /// <summary>A picture that takes little time.</summary>
    public static Generation Small(int steps = 1, long seed = 7) => new()
    {
        Prompt = "a red apple",
        WidthPx = 64,
        HeightPx = 64,
        Sampling = new Sampling { Steps = steps, Seed = seed },
    };

    /// <summary>The same on one device.</summary>
    public static GenerateRequest On(string deviceId, int steps = 1, JobOptions? options = null)
    {
        var request = new GenerateRequest { Generation = Small(steps), Options = options ?? new JobOptions() };
        request.Options.Devices = new DeviceSelector { DeviceIds = { deviceId } };
        return request;
    }

    public static async Task<List<JobEvent>> Collect(IAsyncEnumerable<JobEvent> events)
    {
        var seen = new List<JobEvent>();
        await foreach (var told in events)
        {
            seen.Add(told);
        }
        return seen;
    }

    /// <summary>Sequences rise, heartbeats aside, and exactly the last event ends the job.</summary>
    public static void AssertWhole(IReadOnlyList<JobEvent> events)
    {
        var kept = events.Where(told => told.KindCase != JobEvent.KindOneofCase.Heartbeat).Select(told => told.Sequence).ToList();
        Assert.Equal(1, kept[0]);
        Assert.All(kept.Zip(kept.Skip(1)), pair => Assert.True(pair.First < pair.Second, $"{pair.First} before {pair.Second}"));
        Assert.Same(events[^1], Assert.Single(events, told => told.Terminal));
    }
}
