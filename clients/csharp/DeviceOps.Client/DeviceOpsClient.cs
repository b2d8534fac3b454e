using System.Diagnostics.CodeAnalysis;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Calls;
using Grpc.Core;
using Grpc.Core.Interceptors;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace DeviceOps.Client;

/// <summary>
/// A client of one DeviceOps server. It is thread-safe; one is enough for a process. Its stubs (<see cref="Inference"/> …) are those of the
/// contract, with typed errors, deadlines for reads, retries of reads, trace context and metrics.
/// </summary>
public sealed partial class DeviceOpsClient : IDisposable, IAsyncDisposable
{
    private readonly IDisposable? owned;
    private readonly DeviceOpsClientOptions options;
    private readonly ILogger logger;

    /// <summary>Makes a client over any invoker: a channel's (<c>channel.CreateCallInvoker()</c>), or one over another transport.</summary>
    /// <param name="invoker">Carries the calls.</param>
    /// <param name="options">Times and token; its address is not used. Null: the defaults.</param>
    /// <param name="loggers">Where to log. Null: nowhere.</param>
    /// <param name="owned">What the client disposes of with itself: a channel, or the transport of a child process. Null: nothing.</param>
    public DeviceOpsClient(CallInvoker invoker, DeviceOpsClientOptions? options = null, ILoggerFactory? loggers = null, IDisposable? owned = null)
    {
        Check.NotNull(invoker, nameof(invoker));
        this.options = options ?? new DeviceOpsClientOptions();
        this.owned = owned;
        logger = (loggers ?? NullLoggerFactory.Instance).CreateLogger("DeviceOps.Client");
        Invoker = invoker.Intercept(new ClientInterceptor(this.options));
        Devices = new DeviceService.DeviceServiceClient(Invoker);
        Memory = new MemoryService.MemoryServiceClient(Invoker);
        Models = new ModelService.ModelServiceClient(Invoker);
        Inference = new InferenceService.InferenceServiceClient(Invoker);
        Postprocessing = new PostprocessingService.PostprocessingServiceClient(Invoker);
        Processing = new ProcessingService.ProcessingServiceClient(Invoker);
        Blobs = new BlobStore(Memory, this.options, logger);
    }

    /// <summary>Carries the calls of all stubs, for further stubs over the same connection (<c>grpc.health.v1</c> …).</summary>
    public CallInvoker Invoker { get; }

    /// <summary>Hardware, its health and its control.</summary>
    public DeviceService.DeviceServiceClient Devices { get; }

    /// <summary>Memory pools, budgets, reservations and blobs.</summary>
    public MemoryService.MemoryServiceClient Memory { get; }

    /// <summary>Models on disk and in memory.</summary>
    public ModelService.ModelServiceClient Models { get; }

    /// <summary>Diffusion.</summary>
    public InferenceService.InferenceServiceClient Inference { get; }

    /// <summary>What is done to finished pictures, and safety.</summary>
    public PostprocessingService.PostprocessingServiceClient Postprocessing { get; }

    /// <summary>Jobs, the queue and the whole server.</summary>
    public ProcessingService.ProcessingServiceClient Processing { get; }

    /// <summary>Large data as streams, and files that both processes map.</summary>
    public BlobStore Blobs { get; }

    /// <summary>Connects to a server. The connection is made with the first call, and again after each break.</summary>
    /// <param name="address"><c>http://host:port</c>, <c>https://host:port</c>, <c>unix:///path</c> or <c>pipe://name</c>.</param>
    /// <returns>The client; dispose of it to close its connections.</returns>
    public static DeviceOpsClient Connect(string address) => Connect(new DeviceOpsClientOptions { Address = address });

    /// <inheritdoc cref="Connect(string)"/>
    public static DeviceOpsClient Connect(Uri address)
    {
        Check.NotNull(address, nameof(address));
        return Connect(address.OriginalString);
    }

    /// <summary>Connects to a server, with other options than the defaults.</summary>
    /// <param name="options">Address, times and token.</param>
    /// <param name="loggers">Where to log. Null: nowhere.</param>
    /// <returns>The client; dispose of it to close its connections.</returns>
    /// <exception cref="ArgumentException">An option is outside its range; the message says which.</exception>
    public static DeviceOpsClient Connect(DeviceOpsClientOptions options, ILoggerFactory? loggers = null)
    {
        Check.NotNull(options, nameof(options));
        if (options.Problem() is { } problem || !Endpoint.TryParse(options.Address, out var endpoint))
        {
            throw new ArgumentException(options.Problem(), nameof(options));
        }
        var channel = ChannelFactory.Create(endpoint, options, loggers ?? NullLoggerFactory.Instance);
        return new DeviceOpsClient(channel.CreateCallInvoker(), options, loggers, channel);
    }

    /// <summary>Connects to a server that listens on a Unix domain socket.</summary>
    /// <param name="path">The socket's file.</param>
    /// <returns>The client; dispose of it to close its connections.</returns>
    public static DeviceOpsClient ConnectUnixSocket(string path) => Connect("unix://" + path);

    /// <summary>Connects to a server that listens on a named pipe of this machine.</summary>
    /// <param name="name">The pipe's name, without <c>\\.\pipe\</c>.</param>
    /// <returns>The client; dispose of it to close its connections.</returns>
    /// <remarks>Experimental: the server itself listens on TCP, Unix sockets and stdio; a pipe needs a relay beside it.</remarks>
    [Experimental("DEVICEOPS001")]
    public static DeviceOpsClient ConnectNamedPipe(string name) => Connect("pipe://" + name);

    /// <summary>Closes the connections. Jobs go on: they belong to the server.</summary>
    public void Dispose() => owned?.Dispose();

    /// <summary>Closes the connections, and waits for a child process that serves them to end. Jobs go on: they belong to the server.</summary>
    /// <returns>When they are closed.</returns>
    public ValueTask DisposeAsync()
    {
        if (owned is IAsyncDisposable waits)
        {
            return waits.DisposeAsync();
        }
        owned?.Dispose();
        return default;
    }
}
