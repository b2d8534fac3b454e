using CsCheck;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf.WellKnownTypes;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>What C# sends comes back as it was: by property in memory, and through the server.</summary>
public sealed class RoundTripTests(SharedServer server)
{
    private static readonly Gen<Timestamp> Times = Gen.Select(
        Gen.Long[-62_135_596_800, 253_402_300_799], Gen.Int[0, 999_999_999], (seconds, nanos) => new Timestamp { Seconds = seconds, Nanos = nanos });

    private static readonly Gen<JobEvent> Events = Gen.Select(
        Gen.Long, Gen.Int[0, 99], Times, Gen.Nullable(Gen.Double), Gen.Long,
        (sequence, state, time, ratio, total) =>
        {
            var progress = new JobProgress { Total = total };
            if (ratio is { } known)
            {
                progress.CompletedRatio = known;
            }
            return new JobEvent { JobId = "job", Sequence = sequence, State = (JobState)state, EventTime = time, Progress = progress };
        });

    [Fact]
    public void LongNumbersPresenceUnknownEnumValuesAndTimesSurviveTheWire() => Events.Sample(told =>
    {
        var again = JobEvent.Parser.ParseFrom(Google.Protobuf.MessageExtensions.ToByteArray(told));
        return again.Equals(told) && again.Sequence == told.Sequence && again.State == told.State
            && again.Progress.HasCompletedRatio == told.Progress.HasCompletedRatio && again.EventTime.Nanos == told.EventTime.Nanos;
    });

    [Theory]
    [InlineData(0L)]
    [InlineData(4_294_967_296L)]
    [InlineData(long.MaxValue)]
    public async Task ASeedOf64BitsReachesTheServerAndComesBack(long seed)
    {
        var result = await server.Client.GenerateAsync(Asking.Small(seed: seed), null, Asking.Stop);
        Assert.Equal(seed, result.Images[0].Seed);
        Assert.Equal([seed], result.Resolved.Generation.Sampling.Seeds);
    }

    [Fact]
    public async Task ZeroIsAnotherRequestThanAbsent()
    {
        var zero = Asking.Small();
        zero.Sampling.GuidanceScale = 0;
        var job = server.Client.GenerateAsync(zero, Asking.Stop);
        var resolved = (await job.WaitAsync(cancellationToken: Asking.Stop)).Resolved.Generation;
        var stored = (await server.Client.Processing.GetJobAsync(new GetJobRequest { JobId = job.JobId }, cancellationToken: Asking.Stop)).Job;
        var open = (await server.Client.GenerateAsync(Asking.Small(), null, Asking.Stop)).Resolved.Generation;

        Assert.True(stored.Spec.Generation.Sampling.HasGuidanceScale);
        Assert.Equal(0, resolved.Sampling.GuidanceScale);
        Assert.True(open.Sampling.GuidanceScale > 0);
    }

    [Fact]
    public async Task DurationsAndTimesKeepTheirNanoseconds()
    {
        var options = new JobOptions { Priority = Priority.Normal, RunTimeout = new Duration { Seconds = 1000, Nanos = 123_456_789 }, Labels = { new Label { Key = "k", Value = "ü€😀" } } };
        var job = server.Client.GenerateAsync(new GenerateRequest { Generation = Asking.Small(), Options = options }, Asking.Stop);
        var events = await Asking.Collect(job);
        var stored = (await server.Client.Processing.GetJobAsync(new GetJobRequest { JobId = job.JobId }, cancellationToken: Asking.Stop)).Job;

        Assert.Equal(options, stored.Options);
        Assert.Equal(stored.EndTime, events[^1].EventTime);
        Assert.InRange(stored.CreateTime.ToDateTimeOffset(), DateTimeOffset.UtcNow.AddMinutes(-5), DateTimeOffset.UtcNow.AddMinutes(5));
    }

    [Fact]
    public async Task AnEnumValueThatTheServerDoesNotKnowIsRefusedByName()
    {
        var asked = Asking.Small();
        asked.Determinism = (Determinism)77;
        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => server.Client.GenerateAsync(asked, null, Asking.Stop));
        Assert.Equal(ErrorReason.InvalidField, error.Reason);
        Assert.Equal("generation.determinism", Assert.Single(error.Violations).Field);
    }
}
