using System.Buffers;
using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>Takes a serialised request behind the room for its frame's header, so that nothing is copied later.</summary>
internal sealed class RequestBuffer : SerializationContext, IBufferWriter<byte>
{
    private byte[] bytes = new byte[FrameFormat.RawHeaderBytes];
    private int length = FrameFormat.RawHeaderBytes;

    /// <summary>The frame of a request; its header is not filled in yet.</summary>
    public static byte[] FrameOf<T>(Marshaller<T> marshaller, T request)
    {
        var buffer = new RequestBuffer();
        marshaller.ContextualSerializer(request, buffer);
        if (buffer.bytes.Length != buffer.length)
        {
            Array.Resize(ref buffer.bytes, buffer.length);
        }
        return buffer.bytes;
    }

    public override void SetPayloadLength(int payloadLength) => bytes = new byte[FrameFormat.RawHeaderBytes + payloadLength];

    public override IBufferWriter<byte> GetBufferWriter() => this;

    public override void Complete(byte[] payload)
    {
        SetPayloadLength(payload.Length);
        payload.CopyTo(bytes, FrameFormat.RawHeaderBytes);
        length = bytes.Length;
    }

    public override void Complete()
    {
    }

    public void Advance(int count) => length += count;

    public Memory<byte> GetMemory(int sizeHint = 0)
    {
        var needed = length + Math.Max(sizeHint, 1);
        if (needed > bytes.Length)
        {
            Array.Resize(ref bytes, Math.Max(needed, bytes.Length * 2));
        }
        return bytes.AsMemory(length);
    }

    public Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;
}

/// <summary>One received message, for its parser.</summary>
internal sealed class ReceivedPayload(ReadOnlyMemory<byte> payload) : DeserializationContext
{
    public override int PayloadLength => payload.Length;

    public override byte[] PayloadAsNewBuffer() => payload.ToArray();

    public override ReadOnlySequence<byte> PayloadAsReadOnlySequence() => new(payload);
}
