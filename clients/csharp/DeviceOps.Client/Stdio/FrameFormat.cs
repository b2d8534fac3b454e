using System.Buffers.Binary;
using DeviceOps.Api.Stdio.V1;
using Google.Protobuf;

namespace DeviceOps.Client.Stdio;

/// <summary>The bytes of frames. <c>protos/deviceops/stdio/v1/frame.proto</c> specifies the layout and the rules.</summary>
internal static class FrameFormat
{
    public const int HeaderBytes = 12;

    /// <summary>A header and the call id that begins a raw body.</summary>
    public const int RawHeaderBytes = HeaderBytes + sizeof(long);

    public const byte Version = 1;
    public const byte RawFlag = 1;

    /// <summary>The largest body that an end accepts unless its hello says otherwise.</summary>
    public const int MaxBodyBytes = 16 << 20;

    /// <summary>What the CRC covers of the header: all before the CRC.</summary>
    private const int CheckedBytes = 8;

    public static ReadOnlySpan<byte> Start => [0xDE, 0xF0, Version];

    /// <summary>The bytes of a frame.</summary>
    /// <exception cref="FrameTooLargeException">It is over the receiver's limit.</exception>
    public static byte[] Encode(Frame frame, long limitBytes = MaxBodyBytes)
    {
        var size = frame.CalculateSize();
        CheckSize(size, limitBytes);
        var bytes = new byte[HeaderBytes + size];
        frame.WriteTo(bytes.AsSpan(HeaderBytes));
        Seal(bytes, flags: 0);
        return bytes;
    }

    /// <summary>Fills the first <see cref="RawHeaderBytes"/> of a frame whose payload stands behind them.</summary>
    /// <exception cref="FrameTooLargeException">It is over the receiver's limit.</exception>
    public static void SealRaw(Span<byte> frame, long callId, long limitBytes = MaxBodyBytes)
    {
        CheckSize(frame.Length - HeaderBytes, limitBytes);
        BinaryPrimitives.WriteInt64BigEndian(frame[HeaderBytes..], callId);
        Seal(frame, RawFlag);
    }

    /// <summary>The CRC of a frame, of the part of its header that is checked and of its body.</summary>
    public static uint Crc(ReadOnlySpan<byte> header, ReadOnlySpan<byte> body) => Crc32C.Append(Crc32C.Of(header[..CheckedBytes]), body);

    private static void Seal(Span<byte> frame, byte flags)
    {
        Start.CopyTo(frame);
        frame[3] = flags;
        BinaryPrimitives.WriteUInt32BigEndian(frame[4..], (uint)(frame.Length - HeaderBytes));
        BinaryPrimitives.WriteUInt32BigEndian(frame[CheckedBytes..], Crc(frame, frame[HeaderBytes..]));
    }

    private static void CheckSize(int bodyBytes, long limitBytes)
    {
        if (bodyBytes > limitBytes)
        {
            throw new FrameTooLargeException(bodyBytes, limitBytes);
        }
    }
}
