using Grpc.Core;

namespace DeviceOps.Client.Tests;

/// <summary>A transport without a server: it keeps what the last call carried, and ends each with an error.</summary>
internal abstract class Fake : CallInvoker
{
    public CallOptions Last { get; private set; }

    public void Forget() => Last = default;

    public override TResponse BlockingUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request) => throw Failing(options);

    public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request) =>
        new(Task.FromException<TResponse>(Failing(options)), Headers(), () => Status.DefaultCancelled, () => [], () => { });

    public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request) =>
        new(new Broken<TResponse>(Failing(options)), Headers(), () => Status.DefaultCancelled, () => [], () => { });

    public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options) =>
        new(new Sink<TRequest>(), Task.FromException<TResponse>(Failing(options)), Headers(), () => Status.DefaultCancelled, () => [], () => { });

    public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options) =>
        new(new Sink<TRequest>(), new Broken<TResponse>(Failing(options)), Headers(), () => Status.DefaultCancelled, () => [], () => { });

    protected abstract RpcException Error();

    private RpcException Failing(CallOptions options)
    {
        Last = options;
        return Error();
    }

    private static Task<Metadata> Headers() => Task.FromResult<Metadata>([]);

    private sealed class Sink<T> : IClientStreamWriter<T>
    {
        public WriteOptions? WriteOptions { get; set; }

        public Task CompleteAsync() => Task.CompletedTask;

        public Task WriteAsync(T message) => Task.CompletedTask;
    }

    private sealed class Broken<T>(Exception error) : IAsyncStreamReader<T>
    {
        public T Current => throw new InvalidOperationException();

        public Task<bool> MoveNext(CancellationToken cancellationToken) => Task.FromException<bool>(error);
    }
}
