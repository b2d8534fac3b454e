using System.Diagnostics;
using System.Text;
using DeviceOps.Client.Stdio;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>Calls over the frames of a child, and the child's life and death.</summary>
public sealed class StdioChannelTests : IAsyncDisposable
{
    private const int PictureBytes = 3 << 20;
    private static readonly byte[] Hello = "hello"u8.ToArray();
    private readonly EchoChild child = new();

    public ValueTask DisposeAsync() => child.DisposeAsync();

    [Fact]
    public async Task EachKindOfCallAnswers()
    {
        Assert.Equal(Hello, await child.Ask("echo", Hello));
        Assert.Equal(Hello, child.Channel.CreateCallInvoker().BlockingUnaryCall(
            new Method<byte[], byte[]>(MethodType.Unary, "test.Echo", "echo", Plain, Plain), null, default, Hello));
        using var send = child.Send("echo");
        await send.RequestStream.WriteAsync(Hello, Asking.Stop);
        await send.RequestStream.CompleteAsync();
        Assert.Equal(Hello, await send);
        Assert.Equal((StatusCode.OK, 0), (send.GetStatus().StatusCode, send.GetTrailers().Count));
        Assert.Empty(await send.ResponseHeadersAsync);
        Assert.Equal(1, child.Channel.Starts);
    }

    [Fact]
    public async Task AStreamBeyondTheCreditComesWholeAndInOrder()
    {
        using var call = child.Stream("burst", "1000"u8.ToArray());
        var got = await Numbers(call.ResponseStream);
        Assert.Equal(Enumerable.Range(0, 1000), got);
    }

    [Fact]
    public async Task StreamsBothWaysKeepTheirOrder()
    {
        using var call = child.Talk("echo");
        var sending = Task.Run(
            async () =>
            {
                for (var number = 0; number < 200; number++)
                {
                    await call.RequestStream.WriteAsync(BitConverter.GetBytes(number), Asking.Stop);
                }
                await call.RequestStream.CompleteAsync();
            },
            Asking.Stop);
        var got = new List<int>();
        await foreach (var answer in call.ResponseStream.ReadAllAsync(Asking.Stop))
        {
            got.Add(BitConverter.ToInt32(answer));
        }
        await sending;
        Assert.Equal(Enumerable.Range(0, 200), got);
    }

    [Fact]
    public async Task APictureOfThreeMiBComesWholeBothWays()
    {
        var picture = new byte[PictureBytes];
        new Random(7).NextBytes(picture);
        Assert.Equal(picture, await child.Ask("echo", picture));
        Assert.Equal(new byte[PictureBytes], await child.Ask("picture", Encoding.ASCII.GetBytes($"{PictureBytes}")));
    }

    [Fact]
    public async Task SixtyFourCallsAtOnceKeepApart()
    {
        var calls = Enumerable.Range(0, 64).Select(number => child.Ask("echo", BitConverter.GetBytes(number)).ResponseAsync);
        Assert.Equal(Enumerable.Range(0, 64), (await Task.WhenAll(calls)).Select(bytes => BitConverter.ToInt32(bytes)));
    }

    [Fact]
    public async Task ACallThatIsNotReadHoldsItsWindowAndBlocksNoOther()
    {
        using var unread = child.Stream("newest", "500"u8.ToArray());
        // The other is answered after /newest has run to its end: it dropped what it had no credit for.
        Assert.Equal(Hello, await child.Ask("echo", Hello));
        var count = 0;
        await foreach (var _ in unread.ResponseStream.ReadAllAsync(Asking.Stop))
        {
            count++;
        }
        Assert.Equal((16, "484"), (count, unread.GetStatus().Detail));
    }

    [Fact]
    public async Task LeavingACallFreesItsSender()
    {
        using (var call = child.Stream("burst", "1000"u8.ToArray()))
        {
            Assert.True(await call.ResponseStream.MoveNext(Asking.Stop));
        }
        Assert.Equal(Hello, await child.Ask("echo", Hello)); // the child serves one call after the other
    }

    [Fact]
    public async Task ATokenCancelsTheCall()
    {
        using var stop = new CancellationTokenSource();
        await child.Channel.ConnectAsync(Asking.Stop);
        var call = child.Ask("until", [], new CallOptions(cancellationToken: stop.Token));
        await stop.CancelAsync();
        Assert.Equal(StatusCode.Cancelled, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
        Assert.Equal(StatusCode.Cancelled, call.GetStatus().StatusCode);
        Assert.Equal(Hello, await child.Ask("echo", Hello));
    }

    [Fact]
    public async Task ATokenOfARequestCancelsTheCall()
    {
        using var stop = new CancellationTokenSource();
        using var call = child.Send("until");
        // The child takes none: the credit of sixteen is soon spent.
        var writing = Task.Run(
            async () =>
            {
                while (true)
                {
                    await call.RequestStream.WriteAsync(Hello, stop.Token);
                }
            },
            Asking.Stop);
        stop.CancelAfter(200);
        Assert.Equal(StatusCode.Cancelled, (await Assert.ThrowsAsync<RpcException>(() => writing)).StatusCode);
        Assert.Equal(StatusCode.Cancelled, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
    }

    [Fact]
    public async Task ADeadlineHoldsWhenTheChildDoesNotKeepIt()
    {
        await child.Channel.ConnectAsync(Asking.Stop);
        var call = child.Ask("until", [], new CallOptions(deadline: DateTime.UtcNow.AddMilliseconds(100)));
        Assert.Equal(StatusCode.DeadlineExceeded, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
        Assert.Equal(Hello, await child.Ask("echo", Hello));
    }

    [Fact]
    public async Task AStatusHasItsTextDetailsAndTrailers()
    {
        var call = child.Ask("refuse", []);
        var error = await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync);
        Assert.Equal((StatusCode.NotFound, "no such thing"), (error.StatusCode, error.Status.Detail));
        Assert.Equal("b", error.Trailers.GetValue("a"));
        Assert.Equal([0x08, 0x05], error.Trailers.GetValueBytes("grpc-status-details-bin"));
        Assert.Equal("b", call.GetTrailers().GetValue("a"));
    }

    [Fact]
    public async Task ARequestOverTheLimitIsRefusedHereAndTheNextCallWorks()
    {
        var error = await Assert.ThrowsAsync<RpcException>(() => child.Ask("echo", new byte[17 << 20]).ResponseAsync);
        Assert.Equal(StatusCode.ResourceExhausted, error.StatusCode);
        Assert.Equal(Hello, await child.Ask("echo", Hello));
    }

    [Fact]
    public async Task PrintsInTheChildGoToItsStderr()
    {
        Assert.Equal(Hello, await child.Ask("noise", Hello));
        await child.DisposeAsync();
        foreach (var line in new[] { "a print", "a native library", "the original object", "a C library", "a child of the child" })
        {
            await Until(() => child.Errors.Contains(line));
        }
    }

    [Fact]
    public async Task PingsAreAnsweredWhileTheChildComputesButNotWhileItIsStopped()
    {
        var done = Path.Combine(Path.GetTempPath(), $"deviceops-{Guid.NewGuid():N}");
        await child.Channel.ConnectAsync(Asking.Stop);
        var call = child.Stream("compute", Encoding.UTF8.GetBytes(done));
        Assert.True(await child.Channel.PingAsync(Asking.Stop) > TimeSpan.Zero);
        child.Signal("STOP");
        using (var soon = new CancellationTokenSource(50))
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => child.Channel.PingAsync(soon.Token));
        }
        child.Signal("CONT");
        await child.Channel.PingAsync(Asking.Stop);
        await File.WriteAllBytesAsync(done, [], Asking.Stop);
        Assert.False(await call.ResponseStream.MoveNext(Asking.Stop));
        File.Delete(done);
    }

    [Fact]
    public async Task AKillEndsEveryCallAndTheNextOneStartsAnotherChild()
    {
        await child.Channel.ConnectAsync(Asking.Stop);
        var calls = Enumerable.Range(0, 3).Select(_ => child.Ask("until", [])).ToList();
        Assert.Equal(Hello, await child.Ask("echo", Hello));
        child.Signal("KILL");
        foreach (var call in calls)
        {
            Assert.Equal(StatusCode.Unavailable, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
        }
        Assert.Equal(Hello, await child.Ask("echo", Hello));
        Assert.Equal(2, child.Channel.Starts);
    }

    [Fact]
    public async Task GarbageFromTheChildEndsThePipeWithAReasonAndTheNextCallStartsAnother()
    {
        var error = await Assert.ThrowsAsync<RpcException>(() => child.Ask("garbage", []).ResponseAsync);
        Assert.Equal(StatusCode.Unavailable, error.StatusCode);
        Assert.Contains("4c 6f 61", error.Status.Detail);
        Assert.Contains("4c 6f 61", child.Channel.EndReason);
        await Until(() => child.Errors.Contains("ended: WENT_AWAY")); // the child was told, not merely cut off
        Assert.Equal(Hello, await child.Ask("echo", Hello));
        Assert.Equal(2, child.Channel.Starts);
    }

    [Fact]
    public async Task ACommandThatIsNoProgramIsUnavailable()
    {
        await using var nothing = new StdioChannel(new StdioChannelOptions { Command = ["/no/such/program"] });
        await using var client = new DeviceOpsClient(nothing.CreateCallInvoker());
        var error = await Assert.ThrowsAsync<DeviceOpsException>(
            () => client.Processing.GetSystemStatusAsync(new Api.Processing.V1.GetSystemStatusRequest(), cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal(StatusCode.Unavailable, error.StatusCode);
        Assert.Contains("/no/such/program", error.Status.Detail);
    }

    [Fact]
    public async Task AChildThatPrintsInPlaceOfFramesIsNamed()
    {
        await using var printing = new StdioChannel(new StdioChannelOptions { Command = ["echo", "Loading"] });
        Assert.Contains("4c 6f 61", (await Assert.ThrowsAsync<IOException>(() => printing.ConnectAsync(Asking.Stop))).Message);
    }

    [Fact]
    public async Task DisposingEndsTheChildAndItsCalls()
    {
        await child.Channel.ConnectAsync(Asking.Stop);
        using var process = Process.GetProcessById(child.Channel.ProcessId!.Value);
        var call = child.Ask("until", []);
        await child.DisposeAsync();
        Assert.True(process.HasExited);
        Assert.Equal(StatusCode.Unavailable, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
        Assert.Equal(StatusCode.Cancelled, (await Assert.ThrowsAsync<RpcException>(() => child.Ask("echo", Hello).ResponseAsync)).StatusCode);
    }

    private static readonly Marshaller<byte[]> Plain = Marshallers.Create(bytes => bytes, bytes => bytes);

    private static async Task<List<int>> Numbers(IAsyncStreamReader<byte[]> answers)
    {
        var got = new List<int>();
        await foreach (var answer in answers.ReadAllAsync(Asking.Stop))
        {
            got.Add(System.Buffers.Binary.BinaryPrimitives.ReadInt32BigEndian(answer.AsSpan(answer.Length - 4)));
        }
        return got;
    }

    /// <summary>The child's stderr comes line by line.</summary>
    private static async Task Until(Func<bool> told)
    {
        for (var left = 3000; !told(); left--)
        {
            Assert.True(left > 0, "it was not told in 30 s");
            await Task.Delay(10, Asking.Stop);
        }
    }
}
