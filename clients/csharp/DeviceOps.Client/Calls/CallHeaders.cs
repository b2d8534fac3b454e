using System.Diagnostics;
using Grpc.Core;

namespace DeviceOps.Client.Calls;

/// <summary>The headers that every call carries.</summary>
internal static class CallHeaders
{
    /// <summary>The caller's own headers, then the token and the current trace context (<c>traceparent</c>) where they are not among them.</summary>
    public static Metadata With(Metadata? own, string? token)
    {
        var headers = new Metadata();
        foreach (var entry in own ?? [])
        {
            headers.Add(entry);
        }
        if (token is not null && headers.Get("authorization") is null)
        {
            headers.Add("authorization", $"Bearer {token}");
        }
        DistributedContextPropagator.Current.Inject(Activity.Current, headers, static (carrier, name, value) => Set((Metadata)carrier!, name, value));
        return headers;
    }

    private static void Set(Metadata headers, string name, string value)
    {
        if (headers.Get(name) is null)
        {
            headers.Add(name, value);
        }
    }
}
