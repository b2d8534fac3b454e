using Grpc.Core;
using Grpc.Core.Interceptors;

namespace DeviceOps.Client.Calls;

/// <summary>Round every call of every stub: token, trace context and deadline on the way out; typed errors, a span and the call's time on the
/// way back.</summary>
internal sealed class ClientInterceptor(DeviceOpsClientOptions options) : Interceptor
{
    public override TResponse BlockingUnaryCall<TRequest, TResponse>(
        TRequest request, ClientInterceptorContext<TRequest, TResponse> context, BlockingUnaryCallContinuation<TRequest, TResponse> next)
    {
        var watch = CallWatch.Start(context.Method);
        try
        {
            var response = next(request, Prepared(context));
            watch.End(StatusCode.OK);
            return response;
        }
        catch (RpcException error)
        {
            throw watch.Failed(error);
        }
    }

    public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
        TRequest request, ClientInterceptorContext<TRequest, TResponse> context, AsyncUnaryCallContinuation<TRequest, TResponse> next)
    {
        var watch = CallWatch.Start(context.Method);
        var call = next(request, Prepared(context));
        return new AsyncUnaryCall<TResponse>(
            Answer(call.ResponseAsync, watch), call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
        TRequest request, ClientInterceptorContext<TRequest, TResponse> context, AsyncServerStreamingCallContinuation<TRequest, TResponse> next)
    {
        var watch = CallWatch.Start(context.Method);
        var call = next(request, Prepared(context));
        return new AsyncServerStreamingCall<TResponse>(
            new WatchedReader<TResponse>(call.ResponseStream, watch), call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, Leave(call.Dispose, watch));
    }

    public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
        ClientInterceptorContext<TRequest, TResponse> context, AsyncClientStreamingCallContinuation<TRequest, TResponse> next)
    {
        var watch = CallWatch.Start(context.Method);
        var call = next(Prepared(context));
        return new AsyncClientStreamingCall<TRequest, TResponse>(
            call.RequestStream, Answer(call.ResponseAsync, watch), call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, Leave(call.Dispose, watch));
    }

    public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
        ClientInterceptorContext<TRequest, TResponse> context, AsyncDuplexStreamingCallContinuation<TRequest, TResponse> next)
    {
        var watch = CallWatch.Start(context.Method);
        var call = next(Prepared(context));
        return new AsyncDuplexStreamingCall<TRequest, TResponse>(
            call.RequestStream, new WatchedReader<TResponse>(call.ResponseStream, watch),
            call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, Leave(call.Dispose, watch));
    }

    private ClientInterceptorContext<TRequest, TResponse> Prepared<TRequest, TResponse>(ClientInterceptorContext<TRequest, TResponse> context)
        where TRequest : class
        where TResponse : class
    {
        var call = context.Options.WithHeaders(CallHeaders.With(context.Options.Headers, options.Token));
        if (call.Deadline is null && Methods.IsRead(context.Method.FullName))
        {
            call = call.WithDeadline(DateTime.UtcNow + options.ReadTimeout);
        }
        return new ClientInterceptorContext<TRequest, TResponse>(context.Method, context.Host, call);
    }

    private static async Task<TResponse> Answer<TResponse>(Task<TResponse> response, CallWatch watch)
    {
        try
        {
            var answer = await response.ConfigureAwait(false);
            watch.End(StatusCode.OK);
            return answer;
        }
        catch (RpcException error)
        {
            throw watch.Failed(error);
        }
    }

    private static Action Leave(Action dispose, CallWatch watch) => () =>
    {
        dispose();
        watch.End(StatusCode.Cancelled);
    };
}
