using System.Text.Json;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client.Stdio;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests.Stdio;

/// <summary>One server that a client started as its child, and that listens on TCP and on a Unix socket too.</summary>
public sealed class ThreeWays : IAsyncLifetime
{
    private readonly DirectoryInfo folder = Directory.CreateTempSubdirectory("deviceops-");
    private readonly StdioChannel channel;

    public ThreeWays()
    {
        string[] server = (Environment.GetEnvironmentVariable("DEVICEOPS_SERVER_COMMAND") ?? "deviceops").Split(' ');
        string[] flags = ["--socket", Path.Combine(folder.FullName, "socket"), "--state", Path.Combine(folder.FullName, "state")];
        channel = new StdioChannel(new StdioChannelOptions
        {
            Command = [.. server, "serve", "--stdio", "--port", "0", "--device", "sim", "--heartbeat-s", "0.1", "--drain-reads-s", "0", .. flags],
            StandardError = _ => { },
        });
        Stdio = new DeviceOpsClient(channel.CreateCallInvoker(), owned: channel);
    }

    public DeviceOpsClient Stdio { get; }

    public DeviceOpsClient Tcp { get; private set; } = null!;

    public DeviceOpsClient Unix { get; private set; } = null!;

    /// <summary>The one device; its pool has the same id.</summary>
    public string DeviceId { get; private set; } = "";

    public int Starts => channel.Starts;

    public void KillServer()
    {
        using var process = System.Diagnostics.Process.GetProcessById(channel.ProcessId!.Value);
        process.Kill();
    }

    public async ValueTask InitializeAsync()
    {
        var status = (await Stdio.Processing.GetSystemStatusAsync(new GetSystemStatusRequest(), deadline: DateTime.UtcNow.AddMinutes(2), cancellationToken: Asking.Stop)).Status;
        (Tcp, Unix) = (DeviceOpsClient.Connect(status.ListenAddresses[0]), DeviceOpsClient.Connect(status.ListenAddresses[1]));
        // Answers differ while the device starts.
        using var watch = Tcp.Devices.WatchDeviceStatus(new WatchDeviceStatusRequest(), cancellationToken: Asking.Stop);
        while (DeviceId.Length == 0 && await watch.ResponseStream.MoveNext(Asking.Stop))
        {
            DeviceId = watch.ResponseStream.Current.Statuses.FirstOrDefault(device => device.State == DeviceState.Available)?.DeviceId ?? "";
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Stdio.DisposeAsync();
        Tcp?.Dispose();
        Unix?.Dispose();
        folder.Delete(recursive: true);
    }
}

/// <summary>Every method over TCP, a Unix socket and stdio: one server, and the same answers.</summary>
public sealed class ConformanceTests(ThreeWays ways) : IClassFixture<ThreeWays>
{
    private static readonly ServiceDescriptor[] Services =
    [
        DeviceService.Descriptor, MemoryService.Descriptor, ModelService.Descriptor,
        InferenceService.Descriptor, PostprocessingService.Descriptor, ProcessingService.Descriptor,
    ];

    private static readonly JsonElement Requests = Read();

    /// <summary>The methods of tests/rpc_requests.json, which the tests in Python send too.</summary>
    public static TheoryData<string> Named => [.. Requests.EnumerateObject().Select(request => request.Name)];

    public static TheoryData<string> Methods => [.. Services.SelectMany(service => service.Methods).Select(method => method.FullName)];

    private const int MostHeartbeats = 10;

    [Theory]
    [MemberData(nameof(Methods))]
    public async Task AMethodAnswersTheSameOverEachTransport(string name)
    {
        var method = Services.SelectMany(service => service.Methods).Single(method => method.FullName == name);
        await SameAsync(method, (IMessage)Activator.CreateInstance(method.InputType.ClrType)!);
    }

    [Theory]
    [MemberData(nameof(Named))]
    public async Task ARequestWithContentIsAnsweredTheSameOverEachTransport(string name)
    {
        var method = Services.SelectMany(service => service.Methods).Single(method => method.FullName.EndsWith("." + name, StringComparison.Ordinal));
        var json = Requests.GetProperty(name).GetRawText().Replace("$device", ways.DeviceId, StringComparison.Ordinal).Replace("$pool", ways.DeviceId, StringComparison.Ordinal);
        var answer = await SameAsync(method, JsonParser.Default.Parse(json, method.InputType));
        Assert.Contains(answer.Split(':')[0], new[] { "OK", "OK, nothing", "NotFound", "InvalidArgument" });
    }

    [Fact]
    public async Task APictureIsTheSameOverEachTransport()
    {
        var pictures = new List<byte[]>();
        foreach (var client in new[] { ways.Tcp, ways.Unix, ways.Stdio })
        {
            var result = await client.GenerateAsync(Asking.Small(), null, Asking.Stop);
            pictures.Add(await client.ReadImageAsync(result.Images[0], Asking.Stop));
        }
        Assert.All(pictures, picture => Assert.Equal(pictures[0], picture));
        Assert.True(pictures[0].Length > 100);
    }

    [Fact]
    public async Task ABlobOfThreeMiBGoesUpAndDownOverEachTransport()
    {
        var data = new byte[3 << 20];
        new Random(1).NextBytes(data);
        foreach (var client in new[] { ways.Tcp, ways.Unix, ways.Stdio })
        {
            var blob = await client.Blobs.UploadAsync(new MemoryStream(data), cancellationToken: Asking.Stop);
            Assert.Equal(data, await client.Blobs.ReadBytesAsync(blob.Id, cancellationToken: Asking.Stop));
        }
    }

    /// <summary>The answer, which is the same over each transport.</summary>
    private async Task<string> SameAsync(MethodDescriptor method, IMessage request)
    {
        var overTcp = await AnswerAsync(ways.Tcp, method, request);
        Assert.Equal(overTcp, await AnswerAsync(ways.Unix, method, request));
        Assert.Equal(overTcp, await AnswerAsync(ways.Stdio, method, request));
        return overTcp;
    }

    private static JsonElement Read()
    {
        using var file = typeof(ConformanceTests).Assembly.GetManifestResourceStream("rpc_requests.json")!;
        return JsonDocument.Parse(file).RootElement.Clone();
    }

    /// <summary>What a caller sees of a call, as one text: the status with its details, or the fields of the first answer.</summary>
    private static async Task<string> AnswerAsync(DeviceOpsClient client, MethodDescriptor method, IMessage request)
    {
        try
        {
            var answer = await FirstAsync(client.Invoker, method, request);
            return answer is null ? "OK, nothing" : "OK: " + string.Join(" ", Shape(answer));
        }
        catch (RpcException error)
        {
            var details = Convert.ToBase64String(error.Trailers.GetValueBytes("grpc-status-details-bin") ?? []);
            return $"{error.StatusCode}: {error.Status.Detail} {details}";
        }
    }

    /// <summary>Names of the fields that are set; their values may be of the moment.</summary>
    private static IEnumerable<string> Shape(IMessage message)
    {
        using var json = JsonDocument.Parse(JsonFormatter.Default.Format(message));
        return [.. json.RootElement.EnumerateObject().Select(field => field.Name)];
    }

    private static async Task<IMessage?> FirstAsync(CallInvoker invoker, MethodDescriptor method, IMessage request)
    {
        var options = new CallOptions(cancellationToken: Asking.Stop, deadline: DateTime.UtcNow.AddSeconds(60));
        if (method.IsClientStreaming)
        {
            using var sending = invoker.AsyncClientStreamingCall(Described(method, MethodType.ClientStreaming), null, options);
            await sending.RequestStream.WriteAsync(request, Asking.Stop);
            await sending.RequestStream.CompleteAsync();
            return await sending;
        }
        if (!method.IsServerStreaming)
        {
            return await invoker.AsyncUnaryCall(Described(method, MethodType.Unary), null, options, request);
        }
        using var call = invoker.AsyncServerStreamingCall(Described(method, MethodType.ServerStreaming), null, options, request);
        // On a busy machine heartbeats come before the first answer; a stream without news has nothing else.
        for (var beats = 1; await call.ResponseStream.MoveNext(Asking.Stop); beats++)
        {
            if (call.ResponseStream.Current.CalculateSize() > 0 || beats == MostHeartbeats)
            {
                return call.ResponseStream.Current;
            }
        }
        return null;
    }

    private static Method<IMessage, IMessage> Described(MethodDescriptor method, MethodType type) => new(
        type, method.Service.FullName, method.Name,
        Marshallers.Create(message => message.ToByteArray(), method.InputType.Parser.ParseFrom),
        Marshallers.Create(message => message.ToByteArray(), method.OutputType.Parser.ParseFrom));
}
