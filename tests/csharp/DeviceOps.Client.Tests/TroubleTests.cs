using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Reasons of a server that starts, ends, or loses a device, its disk or its memory.</summary>
[Collection(MortalServer.Name)]
public sealed class TroubleTests(MortalServer mortal)
{
    private const int FileSize = 1;
    private const long Unlimited = -1;
    private readonly DeviceOpsClient client = mortal.Server.Client;

    internal static IReadOnlyList<ErrorReason> Raised { get; } =
    [
        ErrorReason.Draining, ErrorReason.Starting, ErrorReason.FeatureNotInstalled, ErrorReason.DeviceRecovering, ErrorReason.DeviceLost,
        ErrorReason.LoadTimeout, ErrorReason.ModelUnloaded, ErrorReason.StorageFailed, ErrorReason.Preempted, ErrorReason.WorkerRestarting,
    ];

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public async Task AServerThatEndsTakesNoWorkAndEndsItsJob()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("needs SIGTERM");
        }
        var job = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 8), Asking.Stop);
        await using var updates = job.UpdatesAsync(Asking.Stop).GetAsyncEnumerator(Asking.Stop);
        await Until(updates, JobEvent.KindOneofCase.Progress);
        var ended = mortal.Server.StopAsync(Asking.Stop);
        try
        {
            // The server stays for the job, and two seconds more for its picture.
            while ((await client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: Asking.Stop)).Status.Mode != SystemMode.Draining)
            {
            }
            var request = new SubmitJobRequest { Spec = new JobSpec { Generation = Asking.Small() } };
            var error = await Refused(() => client.Processing.SubmitJobAsync(request, cancellationToken: Asking.Stop).ResponseAsync);
            Assert.Equal((ErrorReason.Draining, StatusCode.Unavailable), (error.Reason, error.StatusCode));

            await Until(updates, JobEvent.KindOneofCase.Succeeded);
            Assert.NotEmpty(await client.ReadImageAsync(job.Result.Images[0], Asking.Stop));
            await ended;
        }
        finally
        {
            await mortal.Server.RestartAsync(Asking.Stop);
        }
    }

    [Fact]
    public async Task ADeviceThatStartsSaysSoAndOneWithoutItsLibraryNamesIt()
    {
        var device = new GetDeviceRequest { DeviceId = MortalServer.NeverReady };
        var starting = await Refused(() => client.Devices.GetDeviceAsync(device, cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal((ErrorReason.Starting, StatusCode.Unavailable), (starting.Reason, starting.StatusCode));

        mortal.LetItStart();
        var missing = starting;
        while (missing.Reason == ErrorReason.Starting)
        {
            missing = await Refused(() => client.Devices.GetDeviceAsync(device, cancellationToken: Asking.Stop).ResponseAsync);
        }
        Assert.Equal((ErrorReason.FeatureNotInstalled, StatusCode.Unimplemented), (missing.Reason, missing.StatusCode));
    }

    [Fact]
    public async Task ADeviceThatIsBeingResetTakesNoCheck()
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Asking.Stop);
        await using var running = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 1000), stop.Token).UpdatesAsync(Asking.Stop).GetAsyncEnumerator(Asking.Stop);
        await Until(running, JobEvent.KindOneofCase.Progress);
        var reset = new DeviceReset { DeviceId = MortalServer.Healthy, DrainTimeout = Duration.FromTimeSpan(TimeSpan.FromMinutes(10)) };
        await using var resetting = client.ResetDeviceAsync(reset, null, stop.Token).UpdatesAsync(Asking.Stop).GetAsyncEnumerator(Asking.Stop);
        await Until(resetting, JobEvent.KindOneofCase.StageStarted);

        var check = new CheckDeviceHealthRequest { DeviceId = MortalServer.Healthy };
        var error = await Refused(() => client.Devices.CheckDeviceHealthAsync(check, cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal((ErrorReason.DeviceRecovering, StatusCode.Unavailable), (error.Reason, error.StatusCode));

        await stop.CancelAsync();
        await Assert.ThrowsAsync<JobCancelledException>(() => Until(resetting, JobEvent.KindOneofCase.None));
        await Assert.ThrowsAsync<JobCancelledException>(() => Until(running, JobEvent.KindOneofCase.None));
    }

    [Fact]
    public async Task ASlowLoadAndAVanishedDeviceSaySo()
    {
        var load = new ModelLoad { ModelId = "emoji-sd" };
        var hurried = new JobOptions
        {
            Devices = new DeviceSelector { DeviceIds = { MortalServer.Slow } },
            LoadTimeout = Duration.FromTimeSpan(TimeSpan.FromMilliseconds(50)),
        };
        var late = await Assert.ThrowsAsync<JobFailedException>(() => client.LoadModelAsync(load, hurried, Asking.Stop).WaitAsync(null, Asking.Stop));
        Assert.Equal((ErrorReason.LoadTimeout, StatusCode.DeadlineExceeded), (late.Reason, late.StatusCode));

        mortal.Plug(present: false);
        await UntilState(MortalServer.Slow, DeviceState.Lost);
        var check = new CheckDeviceHealthRequest { DeviceId = MortalServer.Slow };
        var lost = await Refused(() => client.Devices.CheckDeviceHealthAsync(check, cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal((ErrorReason.DeviceLost, StatusCode.Aborted), (lost.Reason, lost.StatusCode));
        mortal.Plug(present: true);
        await UntilState(MortalServer.Slow, DeviceState.Available);
    }

    [Fact]
    public async Task AJobWhoseModelIsUnloadedByForceSaysSo()
    {
        var job = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 1000), Asking.Stop);
        await using var updates = job.UpdatesAsync(Asking.Stop).GetAsyncEnumerator(Asking.Stop);
        while (await updates.MoveNextAsync() && updates.Current.Event.Progress?.Stage != "denoising")
        {
        }
        var unload = new UnloadModelRequest { DeviceId = MortalServer.Healthy, DrainTimeout = new Duration(), Force = true };
        await client.Models.UnloadModelAsync(unload, cancellationToken: Asking.Stop);
        await Until(updates, JobEvent.KindOneofCase.Failed);
        var error = Assert.Throws<JobFailedException>(() => job.Result);
        Assert.Equal((ErrorReason.ModelUnloaded, StatusCode.Aborted), (error.Reason, error.StatusCode));
    }

    [Fact]
    public async Task ADiskThatFailsIsNamedAndTheNextCallWorks()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "needs prlimit");
        var status = (await client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: Asking.Stop)).Status;
        var server = ParentOf(status.Workers.First(worker => worker.ProcessId > 0).ProcessId);
        LimitFiles(server, 1);
        try
        {
            var error = await Refused(() => client.OpenSessionAsync(cancellationToken: Asking.Stop));
            Assert.Equal((ErrorReason.StorageFailed, StatusCode.Internal), (error.Reason, error.StatusCode));
        }
        finally
        {
            LimitFiles(server, Unlimited);
        }
        await using var session = await client.OpenSessionAsync(cancellationToken: Asking.Stop);
    }

    /// <summary>TST-01, memory pressure: what runs gives way, keeps its progress, and is brought to its end when there is room.</summary>
    [Fact]
    public async Task AJobThatGivesWayToAnEmergencyGoesOnAfterwards()
    {
        var job = client.GenerateAsync(Asking.On(MortalServer.Healthy, steps: 20), Asking.Stop);
        var events = new List<JobEvent>();
        await foreach (var told in job)
        {
            events.Add(told);
            if (told.KindCase == JobEvent.KindOneofCase.Progress && events.Count(seen => seen.KindCase == JobEvent.KindOneofCase.Progress) == 1)
            {
                var emergency = new ReclaimMemoryRequest { MemoryPoolId = MortalServer.Healthy, MaxLevel = MemoryReclaimLevel.Emergency };
                var report = (await client.Memory.ReclaimMemoryAsync(emergency, cancellationToken: Asking.Stop)).Report;
                Assert.Contains(report.Steps, step => step.Action == "interrupt" && step.Owner.Id == job.JobId);
            }
        }
        Asking.AssertWhole(events);
        Assert.Equal(ErrorReason.Preempted, Assert.Single(events, told => told.Interrupted is not null).Interrupted.Reason);
        Assert.Equal(JobEvent.KindOneofCase.Succeeded, events[^1].KindCase);
    }

    private static Task<DeviceOpsException> Refused(Func<Task> call) => Assert.ThrowsAsync<DeviceOpsException>(call);

    /// <summary>Reads up to an event of a kind.</summary>
    private static async Task Until(IAsyncEnumerator<WatchJobResponse> updates, JobEvent.KindOneofCase kind)
    {
        while (await updates.MoveNextAsync())
        {
            if (updates.Current.Event.KindCase == kind)
            {
                return;
            }
        }
    }

    private async Task UntilState(string deviceId, DeviceState state)
    {
        using var call = client.Devices.WatchDeviceStatus(new WatchDeviceStatusRequest { DeviceIds = { deviceId } }, cancellationToken: Asking.Stop);
        await foreach (var update in call.ResponseStream.ReadAllAsync(Asking.Stop))
        {
            if (update.Statuses.Any(status => status.State == state))
            {
                return;
            }
        }
    }

    private static int ParentOf(long process)
    {
        var line = File.ReadLines($"/proc/{process}/status").Single(line => line.StartsWith("PPid:", StringComparison.Ordinal));
        return int.Parse(line["PPid:".Length..], CultureInfo.InvariantCulture);
    }

    /// <summary>Makes each write to a file beyond so many bytes fail with EFBIG.</summary>
    private static void LimitFiles(int process, long bytes)
    {
        long[] limits = [bytes, Unlimited];
        Assert.Equal(0, Limit(process, FileSize, limits, IntPtr.Zero));
    }

    [DllImport("libc", EntryPoint = "prlimit64", SetLastError = true)]
    private static extern int Limit(int process, int resource, long[] limits, IntPtr before);
}
