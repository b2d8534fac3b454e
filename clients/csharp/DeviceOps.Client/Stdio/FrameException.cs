namespace DeviceOps.Client.Stdio;

/// <summary>The bytes are not frames, or the frames break the rules. The pipe ends, because later bytes cannot be trusted.</summary>
internal sealed class FrameException(string message) : Exception(message);

/// <summary>A frame is larger than the other end accepts. Nothing was sent.</summary>
internal sealed class FrameTooLargeException(long bodyBytes, long limitBytes)
    : Exception($"a frame body of {bodyBytes} bytes is over the receiver's {limitBytes}; send it in parts");
