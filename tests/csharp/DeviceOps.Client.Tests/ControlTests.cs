using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Model.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Jobs that are paused, go on and branch, and work on models.</summary>
[Collection(MortalServer.Name)]
public sealed class ControlTests(MortalServer mortal)
{
    private readonly DeviceOpsClient client = mortal.Server.Client;

    [Fact]
    public async Task APausedJobBranchesAndGoesOn()
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Asking.Stop);
        var job = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 16), stop.Token);
        await using var events = job.GetAsyncEnumerator(Asking.Stop);
        while (await events.MoveNextAsync() && events.Current.Progress?.Stage != "denoising")
        {
        }
        Assert.Contains((await client.PauseJobAsync(job.JobId, "lunch", Asking.Stop)).State, new[] { JobState.Pausing, JobState.Paused });
        while (await events.MoveNextAsync() && events.Current.KindCase != JobEvent.KindOneofCase.Paused)
        {
        }

        var options = new JobOptions { Devices = new DeviceSelector { DeviceIds = { MortalServer.Healthy } } };
        var branch = client.ContinueAsync(job.JobId, new Generation { Prompt = "a green pear" }, options, Asking.Stop);
        var result = await branch.WaitAsync(cancellationToken: Asking.Stop);
        Assert.NotEqual(job.JobId, branch.JobId);
        Assert.Equal(("a green pear", 16), (result.Resolved.Generation.Prompt, result.Resolved.Generation.Sampling.Steps));
        Assert.Equal(7, Assert.Single(result.Images).Seed);

        Assert.Contains((await client.ResumeJobAsync(job.JobId, cancellationToken: Asking.Stop)).State, new[] { JobState.Queued, JobState.Running });
        await stop.CancelAsync();
        await Assert.ThrowsAsync<JobCancelledException>(async () =>
        {
            while (await events.MoveNextAsync())
            {
            }
        });
    }

    [Fact]
    public async Task AModelIsConvertedCheckedAndForgotten()
    {
        var target = Path.Combine(mortal.Models.FullName, "wide");
        var conversion = new ModelConversion { ModelId = "emoji-sd", Precision = Precision.Bfloat16, DestinationPath = target, NewModelId = "wide" };
        var report = await client.ConvertModelAsync(conversion, null, Asking.Stop).WaitAsync(cancellationToken: Asking.Stop);
        Assert.Equal(("wide", "emoji-sd"), (report.Model.Id, report.SourceModelId));
        Assert.True(report.ConvertedTensorCount > 0);
        Assert.True(Directory.Exists(target));

        var check = new ModelValidation { ModelId = "wide" };
        var validated = await client.ValidateModelAsync(check, null, Asking.Stop).WaitAsync(cancellationToken: Asking.Stop);
        Assert.True(validated.Valid, $"{validated.Findings}");
        await client.Models.ForgetModelAsync(new ForgetModelRequest { ModelId = "wide" }, cancellationToken: Asking.Stop);
        var gone = await Assert.ThrowsAsync<DeviceOpsException>(
            () => client.BenchmarkModelAsync(new ModelBenchmark { ModelId = "wide" }, null, Asking.Stop).WaitAsync(cancellationToken: Asking.Stop));
        Assert.Equal(ErrorReason.ModelNotFound, gone.Reason);
        Directory.Delete(target, recursive: true);
    }
}
