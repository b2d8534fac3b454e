using Grpc.Core;

namespace DeviceOps.Client.Calls;

/// <summary>The messages of a stream, with typed errors.</summary>
internal sealed class WatchedReader<T>(IAsyncStreamReader<T> inner, CallWatch watch) : IAsyncStreamReader<T>
{
    public T Current => inner.Current;

    public async Task<bool> MoveNext(CancellationToken cancellationToken)
    {
        try
        {
            if (await inner.MoveNext(cancellationToken).ConfigureAwait(false))
            {
                return true;
            }
            watch.End(StatusCode.OK);
            return false;
        }
        catch (RpcException error)
        {
            throw watch.Failed(error);
        }
    }
}
