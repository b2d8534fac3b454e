namespace DeviceOps.Testing;

/// <summary>What a test server is.</summary>
public sealed class DeviceOpsTestServerOptions
{
    /// <summary>The command that is <c>deviceops</c>, as program and first arguments. Default: the variable DEVICEOPS_SERVER_COMMAND, split at
    /// spaces (<c>python -m server</c>), else <c>deviceops</c>, found on PATH.</summary>
    public IReadOnlyList<string> Command { get; set; } =
        (System.Environment.GetEnvironmentVariable("DEVICEOPS_SERVER_COMMAND") ?? "deviceops").Split(' ', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>What the simulated devices are and do, as TOML: memory, speed, heat and faults. Null: <see cref="DeviceCount"/> healthy ones.</summary>
    public string? Script { get; set; }

    /// <summary>How many simulated devices there are without a <see cref="Script"/>: <c>sim-0</c>, <c>sim-1</c> …</summary>
    public int DeviceCount { get; set; } = 1;

    /// <summary>More flags of <c>deviceops serve</c>.</summary>
    public IList<string> Flags { get; } = [];

    /// <summary>More environment variables; each setting of the server is one (<c>DEVICEOPS_STALL_TIMEOUT_S</c> …).</summary>
    public IDictionary<string, string> Environment { get; } = new Dictionary<string, string>();

    /// <summary>How long the server may take until a device takes work.</summary>
    public TimeSpan StartTimeout { get; set; } = TimeSpan.FromMinutes(2);
}
