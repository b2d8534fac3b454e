using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.Versioning;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client;
using Grpc.Core;

namespace DeviceOps.Testing;

/// <summary>
/// A real server with simulated devices, for the time of a test: <c>await using var server = await DeviceOpsTestServer.StartAsync();</c>
/// It has a port and a state folder of its own, and makes real pictures with the embedded model, without a GPU. It can be killed and
/// started again in mid-job, and its script edited while it runs.
/// </summary>
public sealed class DeviceOpsTestServer : IAsyncDisposable
{
    private readonly DeviceOpsTestServerOptions options;
    private readonly DirectoryInfo folder = Directory.CreateTempSubdirectory("deviceops-");
    private readonly int port;
    private ServerProcess? process;

    private DeviceOpsTestServer(DeviceOpsTestServerOptions options)
    {
        this.options = options;
        port = FreePort();
        Client = DeviceOpsClient.Connect(Address);
    }

    /// <summary>Where the server listens; the same after a restart.</summary>
    public string Address => $"http://127.0.0.1:{port}";

    /// <summary>A client of the server.</summary>
    public DeviceOpsClient Client { get; }

    /// <summary>The server's log so far.</summary>
    public string Log => process?.Log ?? "";

    /// <summary>Starts a server and waits until a device takes work.</summary>
    /// <param name="options">What it is. Null: one healthy simulated device.</param>
    /// <param name="cancellationToken">Stops the start.</param>
    /// <returns>The server; dispose of it to end it.</returns>
    /// <exception cref="InvalidOperationException">The server ended, or was not ready in time; the message has its log.</exception>
    public static async Task<DeviceOpsTestServer> StartAsync(DeviceOpsTestServerOptions? options = null, CancellationToken cancellationToken = default)
    {
        var server = new DeviceOpsTestServer(options ?? new DeviceOpsTestServerOptions());
        try
        {
            await server.RestartAsync(cancellationToken).ConfigureAwait(false);
            return server;
        }
        catch
        {
            await server.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Replaces the script of the simulated devices; the server looks four times a second.</summary>
    /// <param name="script">The new TOML.</param>
    public void WriteScript(string script)
    {
        var beside = ScriptPath + ".new";
        File.WriteAllText(beside, script);
        File.Move(beside, ScriptPath, overwrite: true);
    }

    /// <summary>Ends the server at once, as a crash would, with all its workers. Its jobs go on after <see cref="RestartAsync"/>.</summary>
    /// <returns>When it is gone.</returns>
    public async Task KillAsync()
    {
        if (process is not null)
        {
            await process.KillAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Ends the server as its operator does (SIGTERM): it takes no new work, and lets running jobs end for as long as its settings
    /// say. Linux and macOS.</summary>
    /// <param name="cancellationToken">Ends the wait, not the server.</param>
    /// <returns>When it is gone.</returns>
    [UnsupportedOSPlatform("windows")]
    public Task StopAsync(CancellationToken cancellationToken = default) => process?.StopAsync(cancellationToken) ?? Task.CompletedTask;

    /// <summary>Starts the server again, on the same port and the same state; one that still runs is killed first.</summary>
    /// <param name="cancellationToken">Stops the start.</param>
    /// <returns>When a device takes work.</returns>
    /// <exception cref="InvalidOperationException">The server ended, or was not ready in time; the message has its log.</exception>
    public async Task RestartAsync(CancellationToken cancellationToken = default)
    {
        await KillAsync().ConfigureAwait(false);
        if (options.Script is not null && !File.Exists(ScriptPath))
        {
            WriteScript(options.Script);
        }
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(options.StartTimeout);
        process = new ServerProcess([.. options.Command, .. Arguments()], options.Environment);
        try
        {
            await process.ServingAsync(limit.Token).ConfigureAwait(false);
            await DeviceReadyAsync(limit.Token).ConfigureAwait(false);
        }
        catch (Exception error) when (error is OperationCanceledException or RpcException && !cancellationToken.IsCancellationRequested)
        {
            throw new InvalidOperationException($"the server was not ready within {options.StartTimeout.TotalSeconds:0} s; its log:\n{Log}", error);
        }
    }

    /// <summary>Kills the process that works on a device; the server starts another.</summary>
    /// <param name="deviceId">The device.</param>
    /// <param name="cancellationToken">Stops the call that asks for the process.</param>
    /// <returns>When the process was killed.</returns>
    public async Task KillWorkerAsync(string deviceId = "sim-0", CancellationToken cancellationToken = default)
    {
        var answer = await Client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: cancellationToken);
        var worker = answer.Status.Workers.Single(worker => worker.DeviceId == deviceId);
        using var found = Process.GetProcessById((int)worker.ProcessId);
        found.Kill();
    }

    /// <summary>Ends the server and removes its state.</summary>
    /// <returns>When both are gone.</returns>
    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await KillAsync().ConfigureAwait(false);
        folder.Delete(recursive: true);
    }

    private string ScriptPath => Path.Combine(folder.FullName, "script.toml");

    private IEnumerable<string> Arguments()
    {
        string[] devices = options.Script is null
            ? ["--device", $"sim:{options.DeviceCount}"]
            : ["--device", "sim", "--sim-script", ScriptPath];
        return
        [
            "serve", "--port", port.ToString(System.Globalization.CultureInfo.InvariantCulture),
            "--state", Path.Combine(folder.FullName, "state"), .. devices, .. options.Flags,
        ];
    }

    /// <summary>Follows the log of changes until a device is available.</summary>
    private async Task DeviceReadyAsync(CancellationToken stop)
    {
        var status = await Client.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), cancellationToken: stop);
        using var call = Client.Processing.WatchEvents(
            new WatchEventsRequest { AfterSequence = status.Status.LastEventSequence }, cancellationToken: stop);
        var listed = await Client.Devices.ListDevicesAsync(new ListDevicesRequest(), cancellationToken: stop);
        if (listed.Devices.Any(device => device.State == DeviceState.Available))
        {
            return;
        }
        await foreach (var update in call.ResponseStream.ReadAllAsync(stop).ConfigureAwait(false))
        {
            if (update.Event?.Device?.State == DeviceState.Available)
            {
                return;
            }
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
