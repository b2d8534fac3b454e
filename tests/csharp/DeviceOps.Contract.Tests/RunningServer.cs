using Grpc.Net.Client;

namespace DeviceOps.Contract.Tests;

/// <summary>The server that tests/csharp/test_csharp.py started; its address is in DEVICEOPS_ADDRESS.</summary>
public sealed class RunningServer : IDisposable
{
    /// <summary>A channel with the defaults of .NET, its 4 MB receive limit too.</summary>
    public GrpcChannel Channel { get; } = GrpcChannel.ForAddress("http://" + Address());

    public void Dispose() => Channel.Dispose();

    private static string Address() =>
        Environment.GetEnvironmentVariable("DEVICEOPS_ADDRESS")
        ?? throw new InvalidOperationException("DEVICEOPS_ADDRESS is not set: start `deviceops serve` and name its host:port there.");
}
