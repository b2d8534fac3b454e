using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Processing.V1;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>A server that is the client's child, killed in mid-job.</summary>
public sealed class ChildServerTests(ThreeWays ways) : IClassFixture<ThreeWays>
{
    [Fact]
    public async Task AJobIsFollowedToItsEndAcrossTheDeathOfTheChild()
    {
        var job = ways.Stdio.GenerateAsync(Asking.Small(steps: 40), Asking.Stop);
        var events = new List<JobEvent>();
        await foreach (var told in job)
        {
            events.Add(told);
            if (told.KindCase == JobEvent.KindOneofCase.Progress && ways.Starts == 1)
            {
                ways.KillServer();
                await BrokenAsync();
            }
        }
        Asking.AssertWhole(events);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
        Assert.Equal(2, ways.Starts);
        Assert.NotEmpty(await ways.Stdio.ReadImageAsync(job.Result.Images[0], Asking.Stop));
    }

    /// <summary>Calls until the next child answers: a call that meets the dying one is UNAVAILABLE.</summary>
    private async Task BrokenAsync()
    {
        while (ways.Starts == 1)
        {
            try
            {
                await ways.Stdio.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), deadline: DateTime.UtcNow.AddMinutes(1), cancellationToken: Asking.Stop);
            }
            catch (RpcException error) when (error.StatusCode == StatusCode.Unavailable)
            {
                continue;
            }
        }
    }
}
