using System.Collections.Concurrent;
using System.Diagnostics;
using DeviceOps.Client.Stdio;
using Grpc.Core;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>A channel to tests/server/stdio/echo_child.py, which says what its methods do.</summary>
internal sealed class EchoChild : IAsyncDisposable
{
    private static readonly Marshaller<byte[]> Bytes = Marshallers.Create(bytes => bytes, bytes => bytes);
    private readonly ConcurrentQueue<string> errors = new();

    public EchoChild() => Channel = new StdioChannel(new StdioChannelOptions
    {
        Command = [Python, "-m", "tests.server.stdio.echo_child"],
        StandardError = errors.Enqueue,
    });

    /// <summary>The program that runs the server of the tests.</summary>
    public static string Python { get; } =
        (Environment.GetEnvironmentVariable("DEVICEOPS_SERVER_COMMAND") ?? "python -m server").Split(' ')[0];

    public StdioChannel Channel { get; }

    /// <summary>What the child wrote to its stderr.</summary>
    public string Errors => string.Join('\n', errors);

    public AsyncUnaryCall<byte[]> Ask(string method, byte[] request, CallOptions options = default) =>
        Channel.CreateCallInvoker().AsyncUnaryCall(Of(MethodType.Unary, method), null, options, request);

    public AsyncServerStreamingCall<byte[]> Stream(string method, byte[] request, CallOptions options = default) =>
        Channel.CreateCallInvoker().AsyncServerStreamingCall(Of(MethodType.ServerStreaming, method), null, options, request);

    public AsyncClientStreamingCall<byte[], byte[]> Send(string method, CallOptions options = default) =>
        Channel.CreateCallInvoker().AsyncClientStreamingCall(Of(MethodType.ClientStreaming, method), null, options);

    public AsyncDuplexStreamingCall<byte[], byte[]> Talk(string method, CallOptions options = default) =>
        Channel.CreateCallInvoker().AsyncDuplexStreamingCall(Of(MethodType.DuplexStreaming, method), null, options);

    /// <summary>Sends a signal (<c>STOP</c>, <c>CONT</c>, <c>KILL</c>) to the child.</summary>
    public void Signal(string name)
    {
        using var kill = Process.Start("kill", [$"-{name}", $"{Channel.ProcessId}"]);
        kill.WaitForExit();
    }

    public ValueTask DisposeAsync() => Channel.DisposeAsync();

    private static Method<byte[], byte[]> Of(MethodType type, string name) => new(type, "test.Echo", name, Bytes, Bytes);
}
