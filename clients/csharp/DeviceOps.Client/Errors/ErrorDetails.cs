using System.Text;
using DeviceOps.Api.Common.V1;
using Google.Rpc;
using Grpc.Core;
using Status = Grpc.Core.Status;

namespace DeviceOps.Client;

/// <summary>What a refused call or a failed job says of its failure, from either form.</summary>
internal sealed class ErrorDetails
{
    private const string Prefix = "ERROR_REASON_";

    private static readonly Dictionary<string, ErrorReason> Reasons = ErrorReflection.Descriptor.EnumTypes
        .Single(type => type.Name == nameof(ErrorReason)).Values
        .ToDictionary(value => value.Name.Substring(Prefix.Length), value => (ErrorReason)value.Number);

    public ErrorReason Reason { get; private set; }

    public string ReasonName { get; private set; } = "";

    public IReadOnlyDictionary<string, string> Facts { get; private set; } = new Dictionary<string, string>();

    public IReadOnlyList<FieldViolation> Violations { get; private set; } = [];

    public TimeSpan? RetryDelay { get; private set; }

    /// <summary>From the rich status in the trailers. Without one, all is empty.</summary>
    public static ErrorDetails Of(RpcException error)
    {
        var details = new ErrorDetails();
        if (error.GetRpcStatus() is not { } status)
        {
            return details;
        }
        if (status.GetDetail<ErrorInfo>() is { } info)
        {
            details.ReasonName = info.Reason;
            details.Reason = ReasonOf(info.Reason);
            details.Facts = info.Metadata.ToDictionary(pair => pair.Key, pair => pair.Value);
        }
        details.Violations =
        [
            .. status.GetDetail<BadRequest>()?.FieldViolations
                .Select(violation => new FieldViolation { Field = violation.Field, Message = violation.Description }) ?? [],
        ];
        details.RetryDelay = status.GetDetail<RetryInfo>()?.RetryDelay?.ToTimeSpan();
        return details;
    }

    /// <summary>From the failure of a job that had started.</summary>
    public static ErrorDetails Of(Failure failure) => new()
    {
        Reason = failure.Reason,
        ReasonName = NameOf(failure.Reason),
        Facts = failure.Facts.GroupBy(fact => fact.Name).ToDictionary(same => same.Key, same => same.First().Value),
        Violations = [.. failure.Violations],
        RetryDelay = failure.RetryDelay?.ToTimeSpan(),
    };

    /// <summary>The reason by its name without the prefix; <see cref="ErrorReason.Unspecified"/> for one that is unknown here.</summary>
    public static ErrorReason ReasonOf(string name) => Reasons.TryGetValue(name, out var reason) ? reason : ErrorReason.Unspecified;

    /// <summary>The text of the exception: reason, message, and each violation on a line of its own.</summary>
    public string Text(Status status)
    {
        var text = new StringBuilder(ReasonName.Length > 0 ? ReasonName : status.StatusCode.ToString());
        text.Append(": ").Append(status.Detail);
        foreach (var violation in Violations)
        {
            text.AppendLine().Append("  ").Append(violation.Field).Append(": ").Append(violation.Message);
        }
        return text.ToString();
    }

    private static string NameOf(ErrorReason reason)
    {
        var found = Reasons.FirstOrDefault(pair => pair.Value == reason);
        return found.Key ?? ((int)reason).ToString(System.Globalization.CultureInfo.InvariantCulture);
    }
}
