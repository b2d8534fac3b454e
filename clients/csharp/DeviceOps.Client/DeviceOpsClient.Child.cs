using DeviceOps.Client.Stdio;
using Microsoft.Extensions.Logging;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Starts a server as a child of this process, with the first call, and speaks with it over its stdin and stdout. A child that died is
    /// started again by the next call; jobs that are followed go on.</summary>
    /// <param name="command">The program and its arguments: <c>"deviceops", "serve", "--stdio"</c>.</param>
    /// <returns>The client; <see cref="DisposeAsync"/> ends the child and waits for it.</returns>
    public static DeviceOpsClient ConnectChild(params string[] command) => ConnectChild(new StdioChannelOptions { Command = command });

    /// <inheritdoc cref="ConnectChild(string[])"/>
    /// <param name="child">Which child to start, and how.</param>
    /// <param name="options">Times and token; its address is not used. Null: the defaults.</param>
    /// <param name="loggers">Where to log. Null: nowhere.</param>
    public static DeviceOpsClient ConnectChild(StdioChannelOptions child, DeviceOpsClientOptions? options = null, ILoggerFactory? loggers = null)
    {
        var channel = new StdioChannel(child);
        return new DeviceOpsClient(channel.CreateCallInvoker(), options, loggers, channel);
    }
}
