using DeviceOps.Testing;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>One server for the tests that kill it, break its devices or fill its queue; they run one after another.</summary>
[CollectionDefinition(Name)]
public sealed class MortalServer : ICollectionFixture<MortalServer>, IAsyncLifetime
{
    public const string Name = "mortal server";

    /// <summary>Works, slowly.</summary>
    public const string Healthy = "sim-0";

    /// <summary>The first job with one step runs out of memory there, the first with two meets an error of the driver, the first with three
    /// computes what is no number.</summary>
    public const string Faulty = "sim-1";

    /// <summary>Loads models slowly, and is plugged in or not.</summary>
    public const string Slow = "sim-2";

    /// <summary>A device whose worker does not start until <see cref="LetItStart"/>, and then lacks its library.</summary>
    public const string NeverReady = "directml:0";

    private const string Script = """
        [[device]]
        id = "sim-0"
        speed = 0.5

        [[device]]
        id = "sim-1"

        [[device.fault]]
        kind = "out_of_memory"
        at_step = 1
        times = 1

        [[device.fault]]
        kind = "driver_error"
        at_step = 2
        times = 1

        [[device.fault]]
        kind = "not_finite"
        at_step = 3
        times = 1

        [[device]]
        id = "sim-2"
        present = true

        [[device.fault]]
        kind = "slow_load"
        bytes_per_second = 100000
        """;

    private readonly DirectoryInfo bin = Directory.CreateTempSubdirectory("deviceops-bin-");

    /// <summary>Where this server looks for models.</summary>
    public DirectoryInfo Models { get; } = Directory.CreateTempSubdirectory("deviceops-models-");

    public DeviceOpsTestServer Server { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        Server = await DeviceOpsTestServer.StartAsync(
            new DeviceOpsTestServerOptions
            {
                Script = Script,
                Flags = { "--model-root", Models.FullName, "--model-poll-s", "0", "--device", "directml", "--directml-python", WaitingPython() },
                Environment = { ["DEVICEOPS_QUEUE_CAPACITY"] = "3", ["DEVICEOPS_DRAIN_S"] = "100", ["DEVICEOPS_DRAIN_READS_S"] = "2" },
            },
            Asking.Stop);
    }

    /// <summary>Lets the worker of <see cref="NeverReady"/> begin.</summary>
    public void LetItStart() => File.WriteAllText(Started, "");

    /// <summary>Plugs <see cref="Slow"/> in or out.</summary>
    public void Plug(bool present) => Server.WriteScript(Script.Replace("present = true", present ? "present = true" : "present = false", StringComparison.Ordinal));

    public async ValueTask DisposeAsync()
    {
        await Server.DisposeAsync();
        Models.Delete(recursive: true);
        bin.Delete(recursive: true);
    }

    private string Started => Path.Combine(bin.FullName, "started");

    /// <summary>A Python for the worker that waits before it begins, and then says what the worker says that finds no torch-directml.</summary>
    private string WaitingPython()
    {
        const string Refuses = """
            from server.stdio.pipe import protect_stdout
            from server.stdio.peer import FramePeer
            from server.worker.frame_orders import FrameOrders
            from domains.processing.on_device.refusal import refuse
            from domains.errors import ErrorReason, NotSupported
            refuse(FrameOrders(FramePeer(*protect_stdout())), NotSupported("install it", ErrorReason.FEATURE_NOT_INSTALLED))
            """;
        var python = Path.Combine(bin.FullName, "python");
        File.WriteAllText(python + ".py", Refuses);
        File.WriteAllText(python, $"#!/bin/sh\nwhile [ ! -e '{Started}' ]; do sleep 0.1; done\nexec '{Stdio.EchoChild.Python}' '{python}.py'\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(python, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }
        return python;
    }
}
