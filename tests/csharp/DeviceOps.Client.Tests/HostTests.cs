using System.Collections.Concurrent;
using System.Diagnostics;
using DeviceOps.Api.Processing.V1;
using Grpc.Core;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Diagnostics.Metrics.Testing;
using Microsoft.Extensions.Options;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>The client in a host, and what it tells of itself.</summary>
public sealed class HostTests(SharedServer server)
{
    [Fact]
    public async Task AHostHasAClientWithBoundOptionsAndAHealthCheck()
    {
        await using var services = Services(("Address", server.Address), ("ReconnectTimeout", "00:00:07"));

        Assert.Equal(TimeSpan.FromSeconds(7), services.GetRequiredService<IOptions<DeviceOpsClientOptions>>().Value.ReconnectTimeout);
        Assert.Same(services.GetRequiredService<DeviceOpsClient>(), services.GetRequiredService<DeviceOpsClient>());
        var report = await services.GetRequiredService<HealthCheckService>().CheckHealthAsync(Asking.Stop);
        var entry = report.Entries["deviceops"];
        Assert.True(entry.Status is HealthStatus.Healthy or HealthStatus.Degraded, entry.Description);
        Assert.Equal("Normal", entry.Data["mode"]);
    }

    [Fact]
    public async Task AServerThatIsNotThereIsUnhealthy()
    {
        await using var services = Services(("Address", "http://127.0.0.1:1"), ("ReadTimeout", "00:00:01"));
        var report = await services.GetRequiredService<HealthCheckService>().CheckHealthAsync(Asking.Stop);
        Assert.Equal(HealthStatus.Unhealthy, report.Status);
    }

    [Theory]
    [InlineData("Address", "ftp://nowhere")]
    [InlineData("ReadTimeout", "00:00:00")]
    public void BadOptionsAreRefusedByName(string name, string value)
    {
        using var services = Services((name, value));
        var error = Assert.Throws<OptionsValidationException>(services.GetRequiredService<DeviceOpsClient>);
        Assert.NotEmpty(error.Message);
    }

    [Fact]
    public async Task EveryCallHasASpanADurationAndTheTraceOfItsCaller()
    {
        using var caller = new ActivitySource("caller");
        // a listener hears every test that runs beside this one, each on its own thread
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name is DeviceOpsTelemetry.ActivitySourceName or "caller",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        using var durations = new MetricCollector<double>(null, DeviceOpsTelemetry.MeterName, "deviceops.client.call.duration");
        var transport = new Silent();
        using var client = new DeviceOpsClient(transport, new DeviceOpsClientOptions { Token = "secret" });

        using var span = caller.StartActivity("work")!;
        await Assert.ThrowsAsync<DeviceOpsException>(() => client.Processing.GetJobAsync(new GetJobRequest(), cancellationToken: Asking.Stop).ResponseAsync);

        var call = Assert.Single(spans, done => done.OperationName.EndsWith("ProcessingService/GetJob", StringComparison.Ordinal) && done.TraceId == span.TraceId);
        Assert.Equal(ActivityStatusCode.Error, call.Status);
        Assert.Equal(call.Id, transport.Last.Headers!.GetValue("traceparent"));
        Assert.Equal("Bearer secret", transport.Last.Headers!.GetValue("authorization"));
        Assert.Contains(durations.GetMeasurementSnapshot(), measured => Equals(measured.Tags["rpc.method"], "GetJob"));
    }

    [Fact]
    public async Task EveryKindOfCallCarriesTokenAndTraceAndThrowsTypedErrors()
    {
        var transport = new Silent();
        using var client = new DeviceOpsClient(transport, new DeviceOpsClientOptions { Token = "secret" });
        var bytes = Marshallers.Create(data => data, data => data);
        Method<byte[], byte[]> Of(MethodType type) => new(type, "other.Service", "Call", bytes, bytes);
        var calls = new Dictionary<MethodType, Func<Task>>
        {
            [MethodType.Unary] = () => client.Invoker.AsyncUnaryCall(Of(MethodType.Unary), null, default, []).ResponseAsync,
            [MethodType.ServerStreaming] = () => client.Invoker.AsyncServerStreamingCall(Of(MethodType.ServerStreaming), null, default, []).ResponseStream.MoveNext(Asking.Stop),
            [MethodType.ClientStreaming] = () => client.Invoker.AsyncClientStreamingCall(Of(MethodType.ClientStreaming), null, default).ResponseAsync,
            [MethodType.DuplexStreaming] = () => client.Invoker.AsyncDuplexStreamingCall(Of(MethodType.DuplexStreaming), null, default).ResponseStream.MoveNext(Asking.Stop),
        };
        using var span = new Activity("work").Start();
        foreach (var call in calls.Values.Append(() => Task.Run(() => client.Invoker.BlockingUnaryCall(Of(MethodType.Unary), null, default, []))))
        {
            await Assert.ThrowsAsync<DeviceOpsException>(call);
            Assert.Equal("Bearer secret", transport.Last.Headers!.GetValue("authorization"));
            Assert.Contains(span.TraceId.ToHexString(), transport.Last.Headers!.GetValue("traceparent"));
            transport.Forget();
        }
    }

    [Fact]
    public async Task OnlyReadsHaveADeadlineOfTheirOwn()
    {
        var transport = new Silent();
        using var client = new DeviceOpsClient(transport);
        await Assert.ThrowsAsync<DeviceOpsException>(() => client.Processing.GetJobAsync(new GetJobRequest(), cancellationToken: Asking.Stop).ResponseAsync);
        Assert.NotNull(transport.Last.Deadline);
        await Assert.ThrowsAsync<DeviceOpsException>(() => client.Processing.SubmitJobAsync(new SubmitJobRequest(), cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Null(transport.Last.Deadline);
        await Assert.ThrowsAsync<DeviceOpsException>(() => client.Processing.WatchJob(new WatchJobRequest(), cancellationToken: Asking.Stop).ResponseStream.MoveNext(Asking.Stop));
        Assert.Null(transport.Last.Deadline);
    }

    private static ServiceProvider Services(params (string Name, string Value)[] options)
    {
        var values = options.ToDictionary(option => $"DeviceOps:{option.Name}", option => (string?)option.Value);
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(values).Build();
        var services = new ServiceCollection().AddLogging().AddDeviceOpsClient(configuration.GetSection("DeviceOps"));
        services.AddHealthChecks().AddDeviceOps();
        return services.BuildServiceProvider();
    }

    private sealed class Silent : Fake
    {
        protected override RpcException Error() => new(new Status(StatusCode.NotFound, "no"));
    }
}
