using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Every method of the contract, called with an empty request: it answers or refuses by a reason, or is on the list of what is not
/// built, tests/server/unimplemented.txt, which the Python tests read too.</summary>
public sealed class EveryMethodTests(SharedServer server)
{
    private static readonly ServiceDescriptor[] Services =
    [
        DeviceService.Descriptor, MemoryService.Descriptor, ModelService.Descriptor,
        InferenceService.Descriptor, PostprocessingService.Descriptor, ProcessingService.Descriptor,
    ];

    private static readonly HashSet<string> NotBuilt = [.. ReadList()];

    internal static IReadOnlyList<ErrorReason> Raised { get; } = NotBuilt.Count > 0 ? [ErrorReason.NotImplemented] : [];

    public static TheoryData<string> Methods => [.. Services.SelectMany(service => service.Methods).Select(method => method.FullName)];

    [Fact]
    public void TheListNamesMethodsOfTheContractAlone() => Assert.Subset(Methods.Select(row => row.Data).ToHashSet(), NotBuilt);

    [Theory]
    [MemberData(nameof(Methods))]
    public async Task AnswersOrSaysThatItIsNotBuilt(string name)
    {
        var method = Services.SelectMany(service => service.Methods).Single(method => method.FullName == name);
        var error = await Record.ExceptionAsync(() => CallAsync(method));

        if (NotBuilt.Contains(name))
        {
            var refusal = Assert.IsType<DeviceOpsException>(error);
            Assert.Equal((StatusCode.Unimplemented, ErrorReason.NotImplemented), (refusal.StatusCode, refusal.Reason));
        }
        else if (error is not null)
        {
            var refusal = Assert.IsType<DeviceOpsException>(error);
            Assert.NotEqual(ErrorReason.Unspecified, refusal.Reason);
            Assert.DoesNotContain(refusal.StatusCode, new[] { StatusCode.Unimplemented, StatusCode.Internal, StatusCode.Unknown });
        }
    }

    /// <summary>One call; of a stream its first message, since some go on for ever.</summary>
    private async Task CallAsync(MethodDescriptor method)
    {
        var options = new CallOptions(cancellationToken: Asking.Stop, deadline: DateTime.UtcNow.AddSeconds(60));
        var request = (IMessage)Activator.CreateInstance(method.InputType.ClrType)!;
        switch (method)
        {
            case { IsClientStreaming: true }:
                using (var call = server.Client.Invoker.AsyncClientStreamingCall(Described(method, MethodType.ClientStreaming), null, options))
                {
                    await call.RequestStream.WriteAsync(request, Asking.Stop);
                    await call.RequestStream.CompleteAsync();
                    await call;
                }
                break;
            case { IsServerStreaming: true }:
                using (var call = server.Client.Invoker.AsyncServerStreamingCall(Described(method, MethodType.ServerStreaming), null, options, request))
                {
                    await call.ResponseStream.MoveNext(Asking.Stop);
                }
                break;
            default:
                await server.Client.Invoker.AsyncUnaryCall(Described(method, MethodType.Unary), null, options, request);
                break;
        }
    }

    private static Method<IMessage, IMessage> Described(MethodDescriptor method, MethodType type) => new(
        type, method.Service.FullName, method.Name,
        Marshallers.Create(message => message.ToByteArray(), method.InputType.Parser.ParseFrom),
        Marshallers.Create(message => message.ToByteArray(), method.OutputType.Parser.ParseFrom));

    private static IEnumerable<string> ReadList()
    {
        using var reader = new StreamReader(typeof(EveryMethodTests).Assembly.GetManifestResourceStream("unimplemented.txt")!);
        return [.. reader.ReadToEnd().Split('\n').Select(line => line.Trim()).Where(line => line.Length > 0 && !line.StartsWith('#'))];
    }
}
