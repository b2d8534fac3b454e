using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Reasons that need a broken device, a full queue, a disabled device or a damaged model.</summary>
[Collection(MortalServer.Name)]
public sealed class FailureTests(MortalServer mortal)
{
    private readonly DeviceOpsClient client = mortal.Server.Client;

    internal static IReadOnlyList<ErrorReason> Raised { get; } =
    [
        ErrorReason.DeviceOutOfMemory, ErrorReason.DriverError, ErrorReason.NumericFailure, ErrorReason.QueueTimeout, ErrorReason.QueueFull,
        ErrorReason.DeviceDisabled, ErrorReason.BudgetExceeded, ErrorReason.ModelNotLoaded, ErrorReason.ModelCorrupt,
        ErrorReason.ModelIncompatible, ErrorReason.ComponentMissing,
    ];

    [Fact]
    public async Task AFailedJobIsATypedErrorAndTheNextOneWorks()
    {
        var memory = await Failed(steps: 1);
        Assert.Equal((ErrorReason.DeviceOutOfMemory, StatusCode.ResourceExhausted), (memory.Reason, memory.StatusCode));
        Assert.True(memory.Facts.ContainsKey("needed_bytes"), memory.Message);
        Assert.Equal(ErrorReason.DriverError, (await Failed(steps: 2)).Reason);
        Assert.Equal(ErrorReason.NumericFailure, (await Failed(steps: 3)).Reason);
        var result = await client.GenerateAsync(Asking.On(MortalServer.Faulty), null, Asking.Stop);
        Assert.NotNull(result.Images[0].File);
    }

    [Fact]
    public async Task AFullQueueAndAJobThatWaitedTooLongSaySo()
    {
        await Update(new DeviceSettings { MaxConcurrentJobs = 1 }, "max_concurrent_jobs");
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Asking.Stop);
        var running = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 1000), stop.Token);
        await using var events = running.GetAsyncEnumerator(Asking.Stop);
        await Until(events, JobEvent.KindOneofCase.Progress);

        var impatient = new JobOptions { QueueTimeout = Duration.FromTimeSpan(TimeSpan.FromMilliseconds(200)) };
        var late = await Assert.ThrowsAsync<JobFailedException>(() => client.GenerateAsync(Asking.On(MortalServer.Healthy, options: impatient), null, Asking.Stop));
        Assert.Equal(ErrorReason.QueueTimeout, late.Reason);

        var waiting = Enumerable.Range(0, 3).Select(_ => client.GenerateAsync(Asking.On(MortalServer.Healthy), stop.Token)).ToList();
        var enumerators = waiting.Select(job => job.GetAsyncEnumerator(Asking.Stop)).ToList();
        foreach (var enumerator in enumerators)
        {
            await Until(enumerator, JobEvent.KindOneofCase.Queued);
        }
        var full = await Assert.ThrowsAsync<DeviceOpsException>(() => client.GenerateAsync(Asking.On(MortalServer.Healthy), null, Asking.Stop));
        Assert.Equal(ErrorReason.QueueFull, full.Reason);
        Assert.True(full.RetryDelay > TimeSpan.Zero, full.Message);

        await stop.CancelAsync();
        foreach (var enumerator in enumerators.Append(events))
        {
            await Assert.ThrowsAsync<JobCancelledException>(() => Until(enumerator, JobEvent.KindOneofCase.None));
            await enumerator.DisposeAsync();
        }
    }

    [Fact]
    public async Task ADisabledDeviceTakesNoMeasurement()
    {
        await Update(new DeviceSettings { Enabled = false }, "enabled");
        try
        {
            var benchmark = new DeviceBenchmark { DeviceId = MortalServer.Healthy };
            var error = await Assert.ThrowsAsync<DeviceOpsException>(() => client.BenchmarkDeviceAsync(benchmark, null, Asking.Stop).WaitAsync(null, Asking.Stop));
            Assert.Equal((ErrorReason.DeviceDisabled, StatusCode.FailedPrecondition), (error.Reason, error.StatusCode));
        }
        finally
        {
            await Update(new DeviceSettings { Enabled = true }, "enabled");
        }
    }

    [Fact]
    public async Task ABudgetBelowWhatIsHeldIsRefused()
    {
        // The device may have been switched on again just now; its pool is there when it makes pictures.
        await client.GenerateAsync(Asking.On(MortalServer.Healthy), null, Asking.Stop);
        var request = new SetMemoryBudgetRequest { MemoryPoolId = MortalServer.Healthy, MemoryBudget = new MemoryBudget { LimitBytes = 1 << 20 } };
        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => client.Memory.SetMemoryBudgetAsync(request, cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal(ErrorReason.BudgetExceeded, error.Reason);
        Assert.NotEqual("", error.Facts["excess_bytes"]);
    }

    [Fact]
    public async Task AModelThatIsNotLoadedIsRefusedWhereItMustBe()
    {
        await client.GenerateAsync(Asking.On(MortalServer.Healthy), null, Asking.Stop);
        await client.Models.UnloadModelAsync(new UnloadModelRequest { All = new EveryLoadedModel() }, cancellationToken: Asking.Stop);
        var request = Asking.On(MortalServer.Healthy);
        (request.Generation.ModelId, request.Generation.RequireLoadedModel) = ("emoji-sd", true);
        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => client.GenerateAsync(request, null, Asking.Stop));
        Assert.Equal(ErrorReason.ModelNotLoaded, error.Reason);
    }

    [Fact]
    public async Task DamagedUnknownAndVanishedModelsHaveTheirReasons()
    {
        await Write("damaged", "{");
        await Write("unknown", """{"_class_name": "UnknownPipeline"}""");
        var report = await client.ScanModelsAsync(new ModelScan(), null, Asking.Stop).WaitAsync(null, Asking.Stop);
        Assert.Contains(report.Failures, failure => failure.Failure.Reason == ErrorReason.ModelCorrupt);
        Assert.Equal(ErrorReason.ModelCorrupt, (await Refused("damaged")).Reason);
        Assert.Equal(ErrorReason.ModelIncompatible, (await Refused("unknown")).Reason);

        mortal.Models.CreateSubdirectory("unknown").Delete(recursive: true);
        await client.ScanModelsAsync(new ModelScan(), null, Asking.Stop).WaitAsync(null, Asking.Stop);
        Assert.Equal(ErrorReason.ComponentMissing, (await Refused("unknown")).Reason);
    }

    private Task<DeviceOpsException> Refused(string modelId) => Assert.ThrowsAsync<DeviceOpsException>(
        () => client.GenerateAsync(new Generation { Prompt = "a", ModelId = modelId }, null, Asking.Stop));

    private Task Write(string model, string index) =>
        File.WriteAllTextAsync(Path.Combine(mortal.Models.CreateSubdirectory(model).FullName, "model_index.json"), index, Asking.Stop);

    private async Task<JobFailedException> Failed(int steps)
    {
        var options = new JobOptions { Fallback = new FallbackPolicy { AllowSmallerBatch = false, AllowOffload = false } };
        var job = client.GenerateAsync(Asking.On(MortalServer.Faulty, steps, options), Asking.Stop);
        var events = await Asking.Collect(job);
        Assert.Equal(JobEvent.KindOneofCase.Failed, events[^1].KindCase);
        var error = Assert.Throws<JobFailedException>(() => job.Result);
        Assert.Equal(job.JobId, error.JobId);
        return error;
    }

    private async Task Update(DeviceSettings settings, string field)
    {
        var request = new UpdateDeviceRequest { DeviceId = MortalServer.Healthy, Settings = settings, UpdateMask = new FieldMask { Paths = { field } } };
        await client.Devices.UpdateDeviceAsync(request, cancellationToken: Asking.Stop);
    }

    /// <summary>Reads up to an event of a kind.</summary>
    private static async Task Until(IAsyncEnumerator<JobEvent> events, JobEvent.KindOneofCase kind)
    {
        while (await events.MoveNextAsync())
        {
            if (events.Current.KindCase == kind)
            {
                return;
            }
        }
    }
}
