using DeviceOps.Client.Calls;
using Grpc.Core;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;
using Microsoft.Extensions.Logging;
#if NET8_0_OR_GREATER
using System.IO.Pipes;
using System.Net.Sockets;
#endif

namespace DeviceOps.Client;

/// <summary>Makes channels with the defaults that this contract needs.</summary>
internal static class ChannelFactory
{
    /// <summary>No answer is larger than 4 MiB; the default limit of .NET is 4 MiB exactly, which leaves nothing for framing.</summary>
    private const int MaxMessageBytes = 8 << 20;

    public static GrpcChannel Create(Endpoint endpoint, DeviceOpsClientOptions options, ILoggerFactory loggers)
    {
        var url = endpoint.Kind == EndpointKind.Http ? endpoint.Target : "http://localhost";
        return GrpcChannel.ForAddress(url, new GrpcChannelOptions
        {
            HttpHandler = Handler(endpoint, options),
            DisposeHttpClient = true,
            LoggerFactory = loggers,
            MaxReceiveMessageSize = MaxMessageBytes,
            ServiceConfig = Retries(),
            ThrowOperationCanceledOnCancellation = false,
#if NET8_0_OR_GREATER
            InitialReconnectBackoff = TimeSpan.FromMilliseconds(100),
            MaxReconnectBackoff = TimeSpan.FromSeconds(2),
#endif
        });
    }

    /// <summary>Calls that only read are sent again when the server was not there. Watches are taken up again by their followers.</summary>
    private static ServiceConfig Retries()
    {
        var reads = new MethodConfig
        {
            RetryPolicy = new RetryPolicy
            {
                MaxAttempts = 4,
                InitialBackoff = TimeSpan.FromMilliseconds(100),
                MaxBackoff = TimeSpan.FromSeconds(2),
                BackoffMultiplier = 3,
                // INTERNAL is what gRPC makes of a connection that breaks in its handshake.
                RetryableStatusCodes = { StatusCode.Unavailable, StatusCode.Internal },
            },
        };
        foreach (var method in Methods.Reads)
        {
            reads.Names.Add(new MethodName { Service = method.Service.FullName, Method = method.Name });
        }
        return new ServiceConfig { MethodConfigs = { reads } };
    }

#if NET8_0_OR_GREATER
    private static SocketsHttpHandler Handler(Endpoint endpoint, DeviceOpsClientOptions options)
    {
        var handler = new SocketsHttpHandler
        {
            // More than 100 calls at once, many watches for example, would wait for each other on one connection.
            EnableMultipleHttp2Connections = true,
            KeepAlivePingDelay = options.KeepAliveInterval,
            KeepAlivePingTimeout = TimeSpan.FromSeconds(10),
            KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,
            PooledConnectionIdleTimeout = TimeSpan.FromMinutes(5),
            ConnectTimeout = options.ConnectTimeout,
        };
        handler.ConnectCallback = endpoint.Kind switch
        {
            EndpointKind.UnixSocket => (_, stop) => ConnectSocket(endpoint.Target, stop),
            EndpointKind.NamedPipe => (_, stop) => ConnectPipe(endpoint.Target, stop),
            _ => null,
        };
        if (handler.ConnectCallback is not null)
        {
            handler.UseProxy = false;
        }
        return handler;
    }

    private static async ValueTask<Stream> ConnectSocket(string path, CancellationToken stop)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), stop).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static async ValueTask<Stream> ConnectPipe(string name, CancellationToken stop)
    {
        var pipe = new NamedPipeClientStream(".", name, PipeDirection.InOut, PipeOptions.Asynchronous | PipeOptions.WriteThrough);
        try
        {
            await pipe.ConnectAsync(stop).ConfigureAwait(false);
            return pipe;
        }
        catch
        {
            await pipe.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }
#else
    private static HttpMessageHandler Handler(Endpoint endpoint, DeviceOpsClientOptions options) =>
        endpoint.Kind == EndpointKind.Http
            ? new HttpClientHandler()
            : throw new PlatformNotSupportedException($"{endpoint.Kind} needs .NET 8 or newer; this is the build for .NET Standard 2.1");
#endif
}
