namespace DeviceOps.Client;

/// <summary>How a client connects and how patient it is. The defaults suit an orchestrator on the server's own machine.</summary>
public sealed class DeviceOpsClientOptions
{
    /// <summary>Where the server listens: <c>http://127.0.0.1:50051</c>, <c>unix:///run/deviceops.sock</c> or <c>pipe://deviceops</c>
    /// (a named pipe of this machine).</summary>
    public string Address { get; set; } = "http://127.0.0.1:50051";

    /// <summary>How long a job may not be reached at its start: for so long, a server that is not there yet is asked again.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a job that was followed may be out of reach, while its server restarts for example, before that is an error.</summary>
    public TimeSpan ReconnectTimeout { get; set; } = TimeSpan.FromMinutes(5);

    /// <summary>How long a watch may be silent before its connection counts as dead. The server breaks a silence after 10 s.</summary>
    public TimeSpan SilenceTimeout { get; set; } = TimeSpan.FromSeconds(25);

    /// <summary>How long a cancelled job may take to confirm its stop.</summary>
    public TimeSpan CancelTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Deadline of calls that only read and say no other. Watches and calls that do work have none.</summary>
    public TimeSpan ReadTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Time between two pings of a connection that carries calls; the server allows one every 5 s.</summary>
    public TimeSpan KeepAliveInterval { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>A token for the server, sent with every call as <c>authorization: Bearer …</c>. Null: none is sent.</summary>
    public string? Token { get; set; }

    /// <summary>What is wrong with these options, or null.</summary>
    internal string? Problem()
    {
        TimeSpan[] times = [ConnectTimeout, ReconnectTimeout, SilenceTimeout, CancelTimeout, ReadTimeout, KeepAliveInterval];
        if (times.Any(time => time <= TimeSpan.Zero))
        {
            return "every time of DeviceOpsClientOptions must be above zero";
        }
        return Endpoint.TryParse(Address, out _)
            ? null
            : $"Address is '{Address}': use http://host:port, https://host:port, unix:///path or pipe://name";
    }
}
