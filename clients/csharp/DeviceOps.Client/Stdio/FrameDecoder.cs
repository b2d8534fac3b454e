using System.Buffers.Binary;
using DeviceOps.Api.Stdio.V1;
using Google.Protobuf;

namespace DeviceOps.Client.Stdio;

/// <summary>A frame that came: a message of its own, or raw bytes of a call.</summary>
internal readonly struct Incoming(Frame? frame, long callId, ReadOnlyMemory<byte> payload)
{
    /// <summary>Null: raw bytes.</summary>
    public Frame? Frame { get; } = frame;

    public long CallId { get; } = callId;

    /// <summary>The raw bytes.</summary>
    public ReadOnlyMemory<byte> Payload { get; } = payload;
}

/// <summary>Decodes the bytes of a pipe, in pieces of any size, to whole frames. It holds at most one unfinished frame.</summary>
internal sealed class FrameDecoder(int maxBodyBytes = FrameFormat.MaxBodyBytes)
{
    private readonly byte[] header = new byte[FrameFormat.HeaderBytes];
    private int headerHeld;
    private byte[] body = [];
    private int bodyHeld;

    /// <summary>Whether a pipe that ends now breaks off inside a frame.</summary>
    public bool InsideFrame => headerHeld > 0;

    /// <summary>Takes bytes from the front of a piece.</summary>
    /// <returns>Whether a frame is whole; false: the piece is used up.</returns>
    /// <exception cref="FrameException">The bytes are no frame; the decoder is of no further use.</exception>
    public bool TryRead(ref ReadOnlySpan<byte> piece, out Incoming frame)
    {
        frame = default;
        if (headerHeld < header.Length)
        {
            headerHeld += Move(ref piece, header.AsSpan(headerHeld));
            CheckStart();
            if (headerHeld < header.Length)
            {
                return false;
            }
            BeginBody();
        }
        bodyHeld += Move(ref piece, body.AsSpan(bodyHeld));
        if (bodyHeld < body.Length)
        {
            return false;
        }
        frame = Whole();
        headerHeld = 0;
        return true;
    }

    private static int Move(ref ReadOnlySpan<byte> from, Span<byte> to)
    {
        var size = Math.Min(from.Length, to.Length);
        from[..size].CopyTo(to);
        from = from[size..];
        return size;
    }

    private void CheckStart()
    {
        var start = header.AsSpan(0, Math.Min(headerHeld, FrameFormat.Start.Length));
        if (!FrameFormat.Start.StartsWith(start))
        {
            var seen = BitConverter.ToString(start.ToArray()).Replace('-', ' ').ToLowerInvariant();
            throw new FrameException($"not a frame of version {FrameFormat.Version}: it begins with the bytes {seen}");
        }
    }

    private void BeginBody()
    {
        var flags = header[3];
        var length = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(4));
        if ((flags & ~FrameFormat.RawFlag) != 0)
        {
            throw new FrameException($"unknown frame flags 0x{flags:x2}");
        }
        if (length > maxBodyBytes)
        {
            throw new FrameException($"a frame body of {length} bytes is over the limit of {maxBodyBytes}");
        }
        if (flags != 0 && length < sizeof(long))
        {
            throw new FrameException($"a raw frame body of {length} bytes has no room for its call id");
        }
        bodyHeld = 0;
#if NET8_0_OR_GREATER
        body = GC.AllocateUninitializedArray<byte>((int)length);
#else
        body = new byte[length];
#endif
    }

    private Incoming Whole()
    {
        var (crc, expected) = (FrameFormat.Crc(header, body), BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8)));
        if (crc != expected)
        {
            throw new FrameException($"CRC-32C is {crc:x8}, the header says {expected:x8}");
        }
        return header[3] == 0 ? Parsed() : RawBytes();
    }

    private Incoming RawBytes()
    {
        var callId = BinaryPrimitives.ReadInt64BigEndian(body);
        return callId > 0
            ? new Incoming(null, callId, body.AsMemory(sizeof(long)))
            : throw new FrameException($"a raw frame for call {callId}; calls are numbered from 1");
    }

    private Incoming Parsed()
    {
        Frame frame;
        try
        {
            frame = Frame.Parser.ParseFrom(body);
        }
        catch (InvalidProtocolBufferException)
        {
            throw new FrameException($"a frame body of {body.Length} bytes does not parse");
        }
        var ofThePipe = frame.BodyCase is Frame.BodyOneofCase.Hello or Frame.BodyOneofCase.Ping or Frame.BodyOneofCase.Pong or Frame.BodyOneofCase.GoAway;
        if (frame.BodyCase == Frame.BodyOneofCase.None)
        {
            throw new FrameException("a frame says nothing that this version knows");
        }
        if (ofThePipe ? frame.CallId != 0 : frame.CallId <= 0)
        {
            throw new FrameException($"a {frame.BodyCase} frame with the call id {frame.CallId}");
        }
        return new Incoming(frame, frame.CallId, default);
    }
}
