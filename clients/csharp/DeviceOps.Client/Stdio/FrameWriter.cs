namespace DeviceOps.Client.Stdio;

/// <summary>Writes frames to a blocking stream in a thread of its own: no caller waits for a child that does not read. Frames that have gathered
/// meanwhile are written at once.</summary>
internal sealed class FrameWriter : IFrameOutput
{
    private const int BatchBytes = 64 << 10;
    private readonly object gate = new();
    private readonly Queue<(byte[] Frame, TaskCompletionSource<bool>? Taken)> waiting = new();
    private readonly List<TaskCompletionSource<bool>> taken = [];
    private readonly byte[] batch = new byte[BatchBytes];
    private readonly Stream stream;
    private readonly Action<Exception> failed;
    private long backlog;
    private bool closed;

    public FrameWriter(Stream stream, Action<Exception> failed)
    {
        (this.stream, this.failed) = (stream, failed);
        new Thread(Run) { IsBackground = true, Name = "deviceops-frame-writer" }.Start();
    }

    public long BacklogBytes => Interlocked.Read(ref backlog);

    public void Write(byte[] frame) => Add(frame, null);

    public Task WriteAsync(byte[] frame)
    {
        var done = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        Add(frame, done);
        return done.Task;
    }

    public void Close()
    {
        lock (gate)
        {
            closed = true;
            Monitor.Pulse(gate);
        }
    }

    private void Add(byte[] frame, TaskCompletionSource<bool>? done)
    {
        lock (gate)
        {
            if (closed)
            {
                done?.TrySetResult(false);
                return;
            }
            waiting.Enqueue((frame, done));
            Interlocked.Add(ref backlog, frame.Length);
            Monitor.Pulse(gate);
        }
    }

    private void Run()
    {
        try
        {
            while (Next() is { Length: > 0 } piece)
            {
                stream.Write(piece.Span);
                stream.Flush();
                Interlocked.Add(ref backlog, -piece.Length);
                Settle();
            }
        }
        catch (Exception error) when (error is IOException or ObjectDisposedException)
        {
            failed(error);
        }
        CloseStream();
    }

    /// <summary>Waits for frames and takes as many as fit together, or one large one. Empty: the output is closed.</summary>
    private ReadOnlyMemory<byte> Next()
    {
        lock (gate)
        {
            while (waiting.Count == 0)
            {
                if (closed)
                {
                    return default;
                }
                Monitor.Wait(gate);
            }
            if (waiting.Peek().Frame.Length > BatchBytes)
            {
                return Take();
            }
            var size = 0;
            while (waiting.Count > 0 && size + waiting.Peek().Frame.Length <= BatchBytes)
            {
                var frame = Take();
                frame.CopyTo(batch, size);
                size += frame.Length;
            }
            return batch.AsMemory(0, size);
        }
    }

    private byte[] Take()
    {
        var (frame, done) = waiting.Dequeue();
        if (done is not null)
        {
            taken.Add(done);
        }
        return frame;
    }

    private void Settle()
    {
        taken.ForEach(done => done.TrySetResult(true));
        taken.Clear();
    }

    private void CloseStream()
    {
        lock (gate)
        {
            closed = true;
            while (waiting.Count > 0)
            {
                Take();
            }
        }
        Settle();
        try
        {
            stream.Dispose();
        }
        catch (IOException)
        {
            return; // the child is gone
        }
    }
}
