using DeviceOps.Client.Tests;
using Xunit;

[assembly: AssemblyFixture(typeof(SharedServer))]

namespace DeviceOps.Client.Tests;

/// <summary>The server that tests/csharp/test_csharp.py started; its address is in DEVICEOPS_ADDRESS. It listens on a Unix socket too.</summary>
public sealed class SharedServer : IDisposable
{
    public string Address { get; } =
        Environment.GetEnvironmentVariable("DEVICEOPS_ADDRESS")
        ?? throw new InvalidOperationException("DEVICEOPS_ADDRESS is not set: start `deviceops serve` and name its host:port there.");

    public DeviceOpsClient Client { get; }

    public SharedServer() => Client = DeviceOpsClient.Connect(Address);

    public void Dispose() => Client.Dispose();
}
