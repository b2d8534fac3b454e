using System.ComponentModel;
using System.Diagnostics;

namespace DeviceOps.Client.Stdio;

/// <summary>A running child and the pipe over its stdin and stdout.</summary>
internal sealed class StdioChild
{
    private const int ReadBytes = 256 << 10;
    private static readonly TimeSpan ReasonTimeout = TimeSpan.FromSeconds(1);
    private readonly Process process;
    private readonly Stream output;
    private readonly TaskCompletionSource<bool> exited = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<FramePipe> made = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private StdioChild(Process process)
    {
        this.process = process;
        process.Exited += (_, _) => exited.TrySetResult(true);
        process.EnableRaisingEvents = true;
        if (process.HasExited)
        {
            exited.TrySetResult(true);
        }
        Id = process.Id;
        output = process.StandardOutput.BaseStream;
        Pipe = new FramePipe(new FrameWriter(process.StandardInput.BaseStream, WriteFailed));
        made.SetResult(Pipe);
        new Thread(Read) { IsBackground = true, Name = "deviceops-frame-reader" }.Start();
    }

    public int Id { get; }

    public FramePipe Pipe { get; }

    /// <summary>Starts the command.</summary>
    /// <exception cref="IOException">It cannot be started.</exception>
    public static StdioChild Start(StdioChannelOptions options)
    {
        var start = new ProcessStartInfo(options.Command[0])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = options.StandardError is not null,
            UseShellExecute = false,
            WorkingDirectory = options.WorkingDirectory ?? "",
        };
        foreach (var argument in options.Command.Skip(1))
        {
            start.ArgumentList.Add(argument);
        }
        foreach (var pair in options.Environment)
        {
            start.Environment[pair.Key] = pair.Value;
        }
        var process = new Process { StartInfo = start };
        process.ErrorDataReceived += (_, line) => Tell(options.StandardError, line.Data);
        try
        {
            process.Start();
        }
        catch (Win32Exception error)
        {
            process.Dispose();
            throw new IOException($"cannot start '{options.Command[0]}': {error.Message}", error);
        }
        if (start.RedirectStandardError)
        {
            process.BeginErrorReadLine();
        }
        return new StdioChild(process);
    }

    /// <summary>Kills the child if it runs, and waits until it is gone.</summary>
    public async Task KillAsync()
    {
        try
        {
            process.Kill();
        }
        catch (Exception error) when (error is InvalidOperationException or Win32Exception)
        {
            await exited.Task.ConfigureAwait(false); // it is ending by itself
        }
        await ExitAsync(Timeout.InfiniteTimeSpan).ConfigureAwait(false);
    }

    /// <summary>Waits until the child has ended. False: it has not in that time.</summary>
    public async Task<bool> ExitAsync(TimeSpan timeout)
    {
        using var stop = new CancellationTokenSource();
        var first = await Task.WhenAny(exited.Task, Task.Delay(timeout, stop.Token)).ConfigureAwait(false);
        stop.Cancel();
        if (first != exited.Task)
        {
            return false;
        }
        process.Dispose();
        return true;
    }

    private static void Tell(Action<string>? told, string? line)
    {
        if (line is not null)
        {
            told?.Invoke(line);
        }
    }

    private void Read()
    {
        var buffer = new byte[ReadBytes];
        try
        {
            int size;
            while ((size = output.Read(buffer, 0, buffer.Length)) > 0)
            {
                if (!Pipe.Feed(buffer.AsSpan(0, size)))
                {
                    break;
                }
            }
            Pipe.FeedEnd();
        }
        catch (Exception error) when (error is IOException or ObjectDisposedException)
        {
            Pipe.FeedEnd(error);
        }
        output.Dispose();
    }

    /// <summary>The child closed its stdin. What it wrote before tells more: the reader comes to it first, where it can.</summary>
    private void WriteFailed(Exception error)
    {
        var pipe = made.Task.Result; // the hello can fail before the constructor has the pipe
        pipe.Ended.Wait(ReasonTimeout);
        pipe.WriteFailed(error);
    }
}
