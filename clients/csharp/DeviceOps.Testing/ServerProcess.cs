using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace DeviceOps.Testing;

/// <summary>One process of <c>deviceops serve</c>.</summary>
internal sealed class ServerProcess
{
    private const string Serving = "deviceops: serving on ";
    private const int Terminate = 15;
    private readonly Process process;
    private readonly StringBuilder log = new();
    private readonly TaskCompletionSource serving = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public ServerProcess(IReadOnlyList<string> command, IEnumerable<KeyValuePair<string, string>> environment)
    {
        var start = new ProcessStartInfo(command[0]) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (var argument in command.Skip(1))
        {
            start.ArgumentList.Add(argument);
        }
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }
        process = new Process { StartInfo = start, EnableRaisingEvents = true };
        process.OutputDataReceived += (_, line) => Took(line.Data);
        process.ErrorDataReceived += (_, line) => Took(line.Data);
        process.Exited += (_, _) => serving.TrySetException(new InvalidOperationException($"the server ended; its log:\n{Log}"));
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>What the process wrote so far.</summary>
    public string Log
    {
        get
        {
            lock (log)
            {
                return log.ToString();
            }
        }
    }

    /// <summary>Waits for the line that says that it serves.</summary>
    public Task ServingAsync(CancellationToken stop) => serving.Task.WaitAsync(stop);

    /// <summary>Asks it to end, as an operator does (SIGTERM), and waits until it has.</summary>
    public async Task StopAsync(CancellationToken stop)
    {
        if (!process.HasExited && Signal(process.Id, Terminate) != 0)
        {
            throw new InvalidOperationException($"process {process.Id} could not be asked to end (errno {Marshal.GetLastPInvokeError()})");
        }
        await process.WaitForExitAsync(stop).ConfigureAwait(false);
    }

    /// <summary>Ends it and its children at once.</summary>
    public async Task KillAsync()
    {
        process.Kill(entireProcessTree: true);
        await process.WaitForExitAsync().ConfigureAwait(false);
    }

    [DllImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static extern int Signal(int processId, int signal);

    private void Took(string? line)
    {
        if (line is null)
        {
            return;
        }
        lock (log)
        {
            log.AppendLine(line);
        }
        if (line.StartsWith(Serving, StringComparison.Ordinal))
        {
            serving.TrySetResult();
        }
    }
}
