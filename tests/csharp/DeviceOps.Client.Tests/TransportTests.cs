using System.IO.Pipes;
using System.Net.Sockets;
using DeviceOps.Api.Processing.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

public sealed class TransportTests(SharedServer server)
{
    [Fact]
    public async Task AUnixSocketMakesAPicture()
    {
        var status = await server.Client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: Asking.Stop);
        var address = status.Status.ListenAddresses.Single(address => address.StartsWith("unix:", StringComparison.Ordinal));
        foreach (var client in new[] { DeviceOpsClient.Connect(address), DeviceOpsClient.ConnectUnixSocket(address["unix:".Length..]) })
        {
            using (client)
            {
                var result = await client.GenerateAsync(Asking.Small(), null, Asking.Stop);
                Assert.NotEmpty(await client.ReadImageAsync(result.Images[0], Asking.Stop));
            }
        }
    }

    [Fact]
    public async Task ANamedPipeMakesAPicture()
    {
        var name = $"deviceops-{Guid.NewGuid():N}";
        await using var pipe = new NamedPipeServerStream(name, PipeDirection.InOut, 1, PipeTransmissionMode.Byte, PipeOptions.Asynchronous);
        var relayed = RelayAsync(pipe);
        using (var client = DeviceOpsClient.ConnectNamedPipe(name))
        {
            var result = await client.GenerateAsync(Asking.Small(), null, Asking.Stop);
            Assert.NotEmpty(await client.ReadImageAsync(result.Images[0], Asking.Stop));
        }
        await relayed;
    }

    [Theory]
    [InlineData("")]
    [InlineData("unix:")]
    [InlineData("ftp://host")]
    public void AnAddressThatSaysNothingIsRefused(string address) =>
        Assert.Contains("http://host:port", Assert.Throws<ArgumentException>(() => DeviceOpsClient.Connect(address)).Message);

    /// <summary>The server has no pipe of its own: this one passes the bytes on.</summary>
    private async Task RelayAsync(NamedPipeServerStream pipe)
    {
        await pipe.WaitForConnectionAsync(Asking.Stop);
        var parts = server.Address.Split(':');
        using var tcp = new TcpClient();
        await tcp.ConnectAsync(parts[0], int.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture), Asking.Stop);
        await Task.WhenAny(pipe.CopyToAsync(tcp.GetStream(), Asking.Stop), tcp.GetStream().CopyToAsync(pipe, Asking.Stop));
    }
}
