using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>What ended a pipe.</summary>
internal enum PipeEndKind
{
    /// <summary>The other process closed its end or died.</summary>
    EndOfStream,

    /// <summary>The other end broke the rules; this end sent go-away.</summary>
    BadFrame,

    /// <summary>The other end sent go-away, then closed.</summary>
    WentAway,

    /// <summary>Reading or writing failed.</summary>
    Broken,

    /// <summary>This end closed it.</summary>
    ClosedHere,
}

/// <summary>Why a pipe has ended.</summary>
internal sealed class PipeEnd(PipeEndKind kind, string detail)
{
    public PipeEndKind Kind { get; } = kind;

    /// <summary>Text for people and for the log.</summary>
    public string Detail { get; } = detail;

    /// <summary>The end of each call that was open then.</summary>
    public CallEnd AsCallEnd() => new(new Status(StatusCode.Unavailable, $"the pipe ended: {Detail}"), []);
}

/// <summary>How a call ended.</summary>
internal sealed class CallEnd(Status status, Metadata trailers)
{
    public Status Status { get; } = status;

    public Metadata Trailers { get; } = trailers;

    public RpcException Error() => new(Status, Trailers);
}
