using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
using Grpc.Core;
using Xunit;
using Status = Grpc.Core.Status;

namespace DeviceOps.Client.Tests;

public sealed class ErrorTests(SharedServer server)
{
    private readonly DeviceOpsClient client = server.Client;

    public static TheoryData<ErrorReason> Reasons =>
        [.. System.Enum.GetValues<ErrorReason>().Where(reason => reason != ErrorReason.Unspecified)];

    [Theory]
    [MemberData(nameof(Reasons))]
    public async Task EveryReasonArrivesAsItsEnumValue(ErrorReason reason)
    {
        var descriptor = ErrorReflection.Descriptor.EnumTypes.Single(type => type.Name == nameof(ErrorReason));
        var name = descriptor.FindValueByNumber((int)reason)!.Name["ERROR_REASON_".Length..];
        using var told = new DeviceOpsClient(new Refusing(StatusCode.Aborted, new ErrorInfo { Reason = name, Metadata = { ["size_bytes"] = "5" } }));

        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => told.Processing.GetJobAsync(new GetJobRequest(), cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal((reason, name, StatusCode.Aborted), (error.Reason, error.ReasonName, error.StatusCode));
        Assert.Equal("5", error.Facts["size_bytes"]);
        Assert.Contains(name, error.Message);
    }

    [Fact]
    public async Task AReasonThatIsNewerThanThePackageKeepsItsName()
    {
        using var told = new DeviceOpsClient(new Refusing(StatusCode.Aborted, new ErrorInfo { Reason = "BRAND_NEW" }));

        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => told.Processing.GetJobAsync(new GetJobRequest(), cancellationToken: Asking.Stop).ResponseAsync);
        Assert.Equal((ErrorReason.Unspecified, "BRAND_NEW"), (error.Reason, error.ReasonName));
    }

    [Fact]
    public async Task TheTimeToWaitArrives()
    {
        var delay = Duration.FromTimeSpan(TimeSpan.FromMilliseconds(1500));
        using var told = new DeviceOpsClient(new Refusing(
            StatusCode.ResourceExhausted, new ErrorInfo { Reason = "QUEUE_FULL" }, new RetryInfo { RetryDelay = delay }));

        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => told.Inference.Generate(new GenerateRequest(), cancellationToken: Asking.Stop).ResponseStream.MoveNext(Asking.Stop));
        Assert.Equal(TimeSpan.FromMilliseconds(1500), error.RetryDelay);
    }

    [Fact]
    public async Task ARefusedRequestNamesAllItsFields()
    {
        var error = await Assert.ThrowsAsync<DeviceOpsException>(
            () => Generate(new Generation { WidthPx = 65, HeightPx = 64, Sampling = new Sampling { Steps = 0, Sampler = "none" } }));

        Assert.Equal(ErrorReason.InvalidField, error.Reason);
        string[] wrong = ["generation.sampling.sampler", "generation.sampling.steps", "generation.width_px"];
        Assert.Equal(wrong, error.Violations.Select(violation => violation.Field).Order());
        Assert.All(error.Violations, violation => Assert.NotEmpty(violation.Message));
        Assert.All(wrong, field => Assert.Contains(field, error.Message));
    }

    [Fact]
    public async Task AServerThatIsNotThereIsSaidSoInTime()
    {
        var options = new DeviceOpsClientOptions { Address = "http://127.0.0.1:1", ConnectTimeout = TimeSpan.FromMilliseconds(300) };
        using var nobody = DeviceOpsClient.Connect(options);
        var error = await Assert.ThrowsAsync<DeviceOpsException>(() => nobody.GenerateAsync(Asking.Small(), null, Asking.Stop));
        Assert.Equal(StatusCode.Unavailable, error.StatusCode);
    }

    private Task Generate(Generation generation) => client.GenerateAsync(generation, null, Asking.Stop);

    /// <summary>A transport on which every call is refused with some details.</summary>
    private sealed class Refusing(StatusCode code, params IMessage[] details) : Fake
    {
        protected override RpcException Error()
        {
            var rich = new Google.Rpc.Status { Code = (int)code, Message = "no" };
            rich.Details.AddRange(details.Select(detail => Any.Pack(detail)));
            return new RpcException(new Status(code, "no"), new Metadata { { "grpc-status-details-bin", rich.ToByteArray() } });
        }
    }
}
