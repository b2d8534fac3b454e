using System.Globalization;
using DeviceOps.Api.Stdio.V1;
using DeviceOps.Client.Stdio;
using Google.Protobuf;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>Mutated frame streams to the client: a go-away with a reason, or nothing; no crash, hang or wrong message. DEVICEOPS_STREAMS is how
/// many there are; bench/attacks/stdio_streams.py asks for 100,000.</summary>
public sealed class MutatedStreamTests
{
    private static readonly int Streams = int.Parse(Environment.GetEnvironmentVariable("DEVICEOPS_STREAMS") ?? "2000", CultureInfo.InvariantCulture);
    private static readonly byte[] Hello = FrameFormat.Encode(new Frame { Hello = new FrameHello { ProtocolVersion = 1, InitialCreditMessages = 16 } });
    private static readonly byte[][] ToCaller =
    [
        Hello,
        FrameFormat.Encode(new Frame { CallId = 1, Message = ByteString.CopyFromUtf8("first") }),
        FrameFormat.Encode(new Frame { Ping = new FramePing { Token = 3 } }),
        FrameFormat.Encode(new Frame { CallId = 3, Message = ByteString.CopyFromUtf8("second") }),
        FrameFormat.Encode(new Frame { CallId = 1, Credit = new FrameCredit { Messages = 3 } }),
        FrameFormat.Encode(new Frame { CallId = 3, Close = new FrameClose() }),
        FrameFormat.Encode(new Frame { CallId = 1, Close = new FrameClose { StatusCode = 5 } }),
    ];

    [Fact]
    public async Task EndInGoAwayWithAReason()
    {
        var broken = 0;
        for (var seed = 0; seed < Streams; seed++)
        {
            broken += await BrokenAsync(seed) ? 1 : 0;
        }
        Assert.InRange(broken, Streams / 8, Streams);
    }

    /// <summary>Whether the stream of this seed broke a rule.</summary>
    private static async Task<bool> BrokenAsync(int seed)
    {
        var output = new Kept();
        var pipe = new FramePipe(output);
        var data = Mutated(new Random(seed));
        var connect = () => new ValueTask<FramePipe>(pipe);
        pipe.Feed(data.AsSpan(0, Math.Min(data.Length, Hello.Length)));
        var calls = new[] { "/t.T/A", "/t.T/B" }.Select(method => new StdioCall(connect, method, default, new byte[FrameFormat.RawHeaderBytes])).ToList();
        pipe.Feed(data.AsSpan(Math.Min(data.Length, Hello.Length)));
        pipe.FeedEnd();

        var end = await pipe.Ended;
        await ExpectAsync(calls[0], "first", seed);
        await ExpectAsync(calls[1], "second", seed);
        var reasons = output.Frames().Where(frame => frame.GoAway is not null).Select(frame => frame.GoAway.Reason).ToList();
        if (end.Kind != PipeEndKind.BadFrame)
        {
            Assert.True(reasons.Count == 0, $"seed {seed}");
            return false;
        }
        Assert.NotEmpty(Assert.Single(reasons));
        return true;
    }

    /// <summary>The call ends, with no message but its own.</summary>
    private static async Task ExpectAsync(StdioCall call, string own, int seed)
    {
        try
        {
            while (await call.NextAsync(Asking.Stop).AsTask().WaitAsync(TimeSpan.FromSeconds(30), Asking.Stop))
            {
                Assert.True(System.Text.Encoding.UTF8.GetString(call.Current.Span) == own, $"seed {seed}");
            }
        }
        catch (RpcException)
        {
            Assert.NotEqual(StatusCode.OK, call.GetStatus().StatusCode);
        }
    }

    /// <summary>One to three mutations of bytes or of whole frames.</summary>
    private static byte[] Mutated(Random dice)
    {
        var parts = ToCaller.Select(frame => frame.ToList()).ToList();
        for (var left = dice.Next(1, 4); left > 0; left--)
        {
            var at = dice.Next(parts.Count);
            var (part, place) = (parts[at], dice.Next(parts[at].Count + 1));
            switch (dice.Next(5))
            {
                case 0 when place < part.Count:
                    part[place] ^= (byte)(1 << dice.Next(8));
                    break;
                case 1:
                    part.InsertRange(place, Enumerable.Range(0, dice.Next(1, 21)).Select(_ => (byte)dice.Next(256)));
                    break;
                case 2:
                    part.RemoveRange(place, Math.Min(dice.Next(1, 21), part.Count - place));
                    break;
                case 3:
                    parts.Insert(dice.Next(parts.Count), [.. part]);
                    break;
                default:
                    (parts[at], parts[0]) = (parts[0], parts[at]);
                    break;
            }
        }
        return [.. parts.SelectMany(part => part)];
    }

    /// <summary>Keeps what a pipe writes.</summary>
    private sealed class Kept : IFrameOutput
    {
        private readonly List<byte[]> written = [];

        public long BacklogBytes => 0;

        public void Write(byte[] frame) => written.Add(frame);

        public Task WriteAsync(byte[] frame)
        {
            written.Add(frame);
            return Task.CompletedTask;
        }

        public void Close()
        {
        }

        public List<Frame> Frames()
        {
            var (decoder, frames) = (new FrameDecoder(), new List<Frame>());
            foreach (var bytes in written)
            {
                ReadOnlySpan<byte> rest = bytes;
                Assert.True(decoder.TryRead(ref rest, out var one));
                if (one.Frame is { } frame)
                {
                    frames.Add(frame);
                }
            }
            return frames;
        }
    }
}
