namespace DeviceOps.Client.Stdio;

/// <summary>Which child to start, and how.</summary>
public sealed class StdioChannelOptions
{
    /// <summary>The program and its arguments: <c>deviceops serve --stdio --device cuda:0</c>, or any other that speaks these frames.</summary>
    public IReadOnlyList<string> Command { get; set; } = ["deviceops", "serve", "--stdio"];

    /// <summary>Environment variables that the child has beside those of this process. A null value takes one away.</summary>
    public IDictionary<string, string?> Environment { get; } = new Dictionary<string, string?>();

    /// <summary>The child's working directory. Null: this process's.</summary>
    public string? WorkingDirectory { get; set; }

    /// <summary>Takes each line of the child's stderr: its log, and all that it and its libraries print. Null: it goes to this process's stderr.</summary>
    public Action<string>? StandardError { get; set; }

    /// <summary>How long the child may take to end after its stdin was closed, before it is killed; running jobs first reach a safe point.</summary>
    public TimeSpan EndTimeout { get; set; } = TimeSpan.FromSeconds(60);
}
