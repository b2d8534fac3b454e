using DeviceOps.Api.Common.V1;
using Grpc.Core;

namespace DeviceOps.Client;

/// <summary>
/// The server refused a call, or cannot be reached. Every stub of <see cref="DeviceOpsClient"/> throws it; since it is an
/// <see cref="RpcException"/>, code that catches that keeps working.
/// </summary>
public class DeviceOpsException : RpcException
{
    private readonly string detail;

    internal DeviceOpsException(ErrorDetails details, Status status, Metadata trailers)
        : base(status, trailers, details.Text(status))
    {
        detail = details.Text(status);
        Reason = details.Reason;
        ReasonName = details.ReasonName;
        Facts = details.Facts;
        Violations = details.Violations;
        RetryDelay = details.RetryDelay;
    }

    /// <summary>The reason and, where the request is at fault, each field that is wrong.</summary>
    public override string Message => detail;

    /// <summary>Why, from the contract's one list. <see cref="ErrorReason.Unspecified"/>: the failure is not of the server (it was
    /// not reached), or its reason is newer than this package; then see <see cref="ReasonName"/>.</summary>
    public ErrorReason Reason { get; }

    /// <summary>Name of the reason as it was sent: <c>INVALID_FIELD</c>. Empty: none was sent.</summary>
    public string ReasonName { get; }

    /// <summary>Every value that the message names: <c>available_bytes</c> …</summary>
    public IReadOnlyDictionary<string, string> Facts { get; }

    /// <summary>Everything that is wrong with the request, all of it at once. Empty where the request is not the cause.</summary>
    public IReadOnlyList<FieldViolation> Violations { get; }

    /// <summary>How long to wait before the same request. Null: the same request will not succeed, or no time can be told.</summary>
    public TimeSpan? RetryDelay { get; }
}
