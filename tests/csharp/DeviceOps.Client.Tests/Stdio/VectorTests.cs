using System.Text;
using System.Text.Json;
using DeviceOps.Api.Stdio.V1;
using DeviceOps.Client.Stdio;
using Google.Protobuf;
using Xunit;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>The codec against tests/stdio_vectors.json, which a client in any language is built with.</summary>
public sealed class VectorTests
{
    private static readonly JsonElement Vectors = Read();

    public static TheoryData<string> Frames => Named("frames");

    public static TheoryData<string> Broken => Named("broken");

    [Fact]
    public void TheCrcIsCastagnolis()
    {
        var check = Vectors.GetProperty("crc32c");
        var text = Encoding.ASCII.GetBytes(check.GetProperty("text").GetString()!);
        Assert.Equal(check.GetProperty("value").GetString(), Crc32C.Of(text).ToString("x8"));
        Assert.Equal(0xE3069283, Crc32C.Of(text));
    }

    [Theory]
    [MemberData(nameof(Frames))]
    public void AVectorIsReadAsItsFrameAndWrittenAgain(string name)
    {
        var (vector, bytes) = Find("frames", name);
        var got = Assert.Single(Decoded(bytes, bytes.Length));
        if (vector.TryGetProperty("raw", out var raw))
        {
            Assert.Equal((long.Parse(raw.GetProperty("callId").GetString()!), raw.GetProperty("payloadHex").GetString()),
                (got.CallId, Convert.ToHexStringLower(got.Payload.Span)));
            var again = new byte[FrameFormat.RawHeaderBytes + got.Payload.Length];
            got.Payload.CopyTo(again.AsMemory(FrameFormat.RawHeaderBytes));
            FrameFormat.SealRaw(again, got.CallId);
            Assert.Equal(bytes, again);
        }
        else
        {
            Assert.Equal(JsonParser.Default.Parse<Frame>(vector.GetProperty("frame").GetRawText()), got.Frame);
            Assert.Equal(bytes, FrameFormat.Encode(got.Frame!));
        }
    }

    [Theory]
    [MemberData(nameof(Broken))]
    public void ABrokenVectorIsRefused(string name) => Assert.Throws<FrameException>(() => Decoded(Find("broken", name).Bytes, int.MaxValue));

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    public void FramesInPiecesAreTheSameFrames(int pieceBytes)
    {
        var all = Frames.Select(row => Find("frames", row.Data).Bytes).ToList();
        var got = Decoded([.. all.SelectMany(bytes => bytes)], pieceBytes);
        Assert.Equal(all.Select(bytes => Assert.Single(Decoded(bytes, bytes.Length)).Frame), got.Select(one => one.Frame));
    }

    private static List<Incoming> Decoded(byte[] bytes, int pieceBytes)
    {
        var decoder = new FrameDecoder();
        var got = new List<Incoming>();
        foreach (var piece in bytes.Chunk(Math.Min(pieceBytes, bytes.Length)))
        {
            ReadOnlySpan<byte> rest = piece;
            while (decoder.TryRead(ref rest, out var frame))
            {
                got.Add(frame);
            }
        }
        Assert.False(decoder.InsideFrame);
        return got;
    }

    private static TheoryData<string> Named(string kind) => [.. Vectors.GetProperty(kind).EnumerateArray().Select(one => one.GetProperty("name").GetString()!)];

    private static (JsonElement Vector, byte[] Bytes) Find(string kind, string name)
    {
        var vector = Vectors.GetProperty(kind).EnumerateArray().Single(one => one.GetProperty("name").GetString() == name);
        return (vector, Convert.FromHexString(vector.GetProperty("hex").GetString()!));
    }

    private static JsonElement Read()
    {
        using var file = typeof(VectorTests).Assembly.GetManifestResourceStream("stdio_vectors.json")!;
        return JsonDocument.Parse(file).RootElement.Clone();
    }
}
