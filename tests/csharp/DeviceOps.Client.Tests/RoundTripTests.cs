using System.Text;
using CsCheck;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf;
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

    /// <summary>What may be present, zero and above 32 bits in a request that the server takes.</summary>
    private static readonly Gen<GenerateRequest> Requests = Gen.Select(
        Gen.Char['À', 'ɏ'].Array[0, 40].Select(letters => new string(letters)), Gen.Nullable(Gen.Double[0, 30]), Gen.Nullable(Gen.Long[0, long.MaxValue - 8]), Gen.Int[1, 86_400], Gen.Int[0, 999_999_999],
        (prompt, guidance, seed, seconds, nanos) =>
        {
            var sampling = new Sampling { Steps = 1 + (nanos % 1000) };
            if (guidance is { } scale)
            {
                sampling.GuidanceScale = scale;
            }
            if (seed is { } number)
            {
                sampling.Seed = number;
            }
            return new GenerateRequest
            {
                Generation = new Generation
                {
                    Prompt = "a " + prompt,
                    WidthPx = 64,
                    HeightPx = 64,
                    Sampling = sampling,
                    // Absent, these are stored as the server chooses.
                    Output = new EncodeOptions { MediaType = "image/png", Manifest = ManifestDetail.Full, Provenance = true },
                    Previews = new PreviewOptions { MaxEdgePx = 256 },
                    Determinism = Determinism.Exact,
                    PromptSyntax = PromptSyntax.Plain,
                    LongPrompt = LongPrompt.Truncate,
                },
                Options = new JobOptions { Priority = Priority.Low, RunTimeout = new Duration { Seconds = seconds, Nanos = nanos }, Labels = { new Label { Key = "k", Value = $"{nanos}" } } },
            };
        });

    [Fact]
    public void LongNumbersPresenceUnknownEnumValuesAndTimesSurviveTheWire() => Events.Sample(told =>
    {
        var again = JobEvent.Parser.ParseFrom(told.ToByteArray());
        return again.Equals(told) && again.Sequence == told.Sequence && again.State == told.State
            && again.Progress.HasCompletedRatio == told.Progress.HasCompletedRatio && again.EventTime.Nanos == told.EventTime.Nanos;
    });

    [Fact]
    public async Task LongNumbersPresenceUnknownEnumValuesAndTimesAreTheSameInPython()
    {
        await using var python = new Stdio.EchoChild();
        var name = Encoding.UTF8.GetBytes("deviceops.common.v1.job_event_pb2:JobEvent\0");
        await Events.SampleAsync(
            async told =>
            {
                var again = JobEvent.Parser.ParseFrom(await python.Ask("again", [.. name, .. told.ToByteArray()]));
                return again.Equals(told);
            },
            iter: 300,
            threads: 1);
    }

    [Fact]
    public async Task AStoredRequestIsTheOneThatWasSent()
    {
        await using var session = await server.Client.OpenSessionAsync(cancellationToken: Asking.Stop);
        await session.PauseAsync(cancellationToken: Asking.Stop);
        await Requests.SampleAsync(
            async asked =>
            {
                var request = new SubmitJobRequest { Spec = new JobSpec { Generation = asked.Generation }, Options = asked.Options };
                var job = await session.SubmitAsync(request, Asking.Stop);
                var stored = (await server.Client.Processing.GetJobAsync(new GetJobRequest { JobId = job.Id }, cancellationToken: Asking.Stop)).Job;
                await session.CancelAsync(cancellationToken: Asking.Stop);
                var expected = asked.Options.Clone();
                expected.SessionId = session.Id;
                Assert.Equal(asked.Generation, stored.Spec.Generation);
                Assert.Equal(expected, stored.Options);
            },
            iter: 40,
            threads: 1);
    }

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
