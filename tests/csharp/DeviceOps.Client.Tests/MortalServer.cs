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
        """;

    /// <summary>Where this server looks for models.</summary>
    public DirectoryInfo Models { get; } = Directory.CreateTempSubdirectory("deviceops-models-");

    public DeviceOpsTestServer Server { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Server = await DeviceOpsTestServer.StartAsync(
        new DeviceOpsTestServerOptions
        {
            Script = Script,
            Flags = { "--model-root", Models.FullName, "--model-poll-s", "0" },
            Environment = { ["DEVICEOPS_QUEUE_CAPACITY"] = "3", ["DEVICEOPS_DRAIN_S"] = "20" },
        },
        Asking.Stop);

    public async ValueTask DisposeAsync()
    {
        await Server.DisposeAsync();
        Models.Delete(recursive: true);
    }
}
