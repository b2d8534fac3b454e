using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>Carries the calls of every generated stub over frames.</summary>
internal sealed class StdioInvoker(Func<ValueTask<FramePipe>> connect) : CallInvoker
{
    public override TResponse BlockingUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request)
    {
        using var call = Begin(method, options, request);
        return AnswerAsync(method, call).GetAwaiter().GetResult();
    }

    public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request)
    {
        var call = Begin(method, options, request);
        return new AsyncUnaryCall<TResponse>(AnswerAsync(method, call), call.Headers, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request)
    {
        var call = Begin(method, options, request);
        var answers = new StdioReader<TResponse>(call, method.ResponseMarshaller);
        return new AsyncServerStreamingCall<TResponse>(answers, call.Headers, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options)
    {
        var call = new StdioCall(connect, method.FullName, options, null);
        var requests = new StdioWriter<TRequest>(call, method.RequestMarshaller);
        return new AsyncClientStreamingCall<TRequest, TResponse>(
            requests, AnswerAsync(method, call), call.Headers, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options)
    {
        var call = new StdioCall(connect, method.FullName, options, null);
        var requests = new StdioWriter<TRequest>(call, method.RequestMarshaller);
        var answers = new StdioReader<TResponse>(call, method.ResponseMarshaller);
        return new AsyncDuplexStreamingCall<TRequest, TResponse>(requests, answers, call.Headers, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    private StdioCall Begin<TRequest, TResponse>(Method<TRequest, TResponse> method, CallOptions options, TRequest request) =>
        new(connect, method.FullName, options, RequestBuffer.FrameOf(method.RequestMarshaller, request));

    /// <summary>The one answer of a call. An error that is not awaited is no fault of the program.</summary>
    private static Task<TResponse> AnswerAsync<TRequest, TResponse>(Method<TRequest, TResponse> method, StdioCall call)
        where TResponse : class
    {
        var answer = OneAsync(method, call);
        answer.ContinueWith(static failed => _ = failed.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        return answer;
    }

    private static async Task<TResponse> OneAsync<TRequest, TResponse>(Method<TRequest, TResponse> method, StdioCall call)
        where TResponse : class
    {
        TResponse? answer = null;
        while (await call.NextAsync(CancellationToken.None).ConfigureAwait(false))
        {
            if (answer is not null)
            {
                call.GiveUp(StatusCode.Internal, $"{method.FullName} sent more than one answer");
                continue;
            }
            answer = StdioReader<TResponse>.Read(call, method.ResponseMarshaller);
        }
        return answer ?? throw new RpcException(new Status(StatusCode.Internal, $"{method.FullName} sent no answer"));
    }
}
