using System.Net;
using System.Net.Sockets;

namespace DeviceOps.Client.Tests;

/// <summary>Passes bytes between a client and the server, and cuts each connection after so many bytes from the server, some times.</summary>
internal sealed class CuttingProxy : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource stop = new();
    private readonly DnsEndPoint target;
    private readonly Task accepting;
    private readonly int cutAfterBytes;
    private int cutsLeft;

    /// <param name="server">host:port.</param>
    /// <param name="cutAfterBytes">Bytes of either direction after which a connection is cut.</param>
    /// <param name="cuts">How many connections are cut; later ones live.</param>
    public CuttingProxy(string server, int cutAfterBytes, int cuts)
    {
        var parts = server.Split(':');
        target = new DnsEndPoint(parts[0], int.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture));
        (this.cutAfterBytes, cutsLeft) = (cutAfterBytes, cuts);
        listener.Start();
        accepting = AcceptAsync();
    }

    public string Address => $"http://{listener.LocalEndpoint}";

    /// <summary>Connections that were cut so far.</summary>
    public int Cuts { get; private set; }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        listener.Stop();
        await accepting.ContinueWith(_ => { }, TaskScheduler.Default);
    }

    private async Task AcceptAsync()
    {
        while (!stop.IsCancellationRequested)
        {
            var client = await listener.AcceptTcpClientAsync(stop.Token);
            _ = PassAsync(client);
        }
    }

    private async Task PassAsync(TcpClient client)
    {
        using (client)
        using (var server = new TcpClient())
        {
            try
            {
                await server.ConnectAsync(target.Host, target.Port, stop.Token);
                var budget = Interlocked.Decrement(ref cutsLeft) >= 0 ? new Budget(cutAfterBytes) : new Budget(long.MaxValue);
                await Task.WhenAny(CopyAsync(client, server, budget), CopyAsync(server, client, budget));
                Cuts += budget.Spent ? 1 : 0;
            }
            catch (Exception error) when (error is IOException or SocketException or OperationCanceledException)
            {
                // The other side is gone, which ends the connection as a cut does.
            }
        }
    }

    private async Task CopyAsync(TcpClient from, TcpClient to, Budget budget)
    {
        var buffer = new byte[1 << 14];
        while (!budget.Spent)
        {
            var count = await from.GetStream().ReadAsync(buffer, stop.Token);
            if (count == 0)
            {
                return;
            }
            await to.GetStream().WriteAsync(buffer.AsMemory(0, count), stop.Token);
            budget.Take(count);
        }
    }

    private sealed class Budget(long bytes)
    {
        private long left = bytes;

        public bool Spent => Interlocked.Read(ref left) <= 0;

        public void Take(long count) => Interlocked.Add(ref left, -count);
    }
}
