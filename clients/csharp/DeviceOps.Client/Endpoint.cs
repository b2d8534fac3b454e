using System.Diagnostics.CodeAnalysis;

namespace DeviceOps.Client;

/// <summary>Ways to reach a server in another process.</summary>
internal enum EndpointKind
{
    /// <summary>HTTP/2 over TCP, with or without TLS.</summary>
    Http,

    /// <summary>HTTP/2 over a Unix domain socket.</summary>
    UnixSocket,

    /// <summary>HTTP/2 over a named pipe.</summary>
    NamedPipe,
}

/// <summary>An address, read.</summary>
internal sealed class Endpoint(EndpointKind kind, string target)
{
    public EndpointKind Kind { get; } = kind;

    /// <summary>A URL, the path of a socket, or the name of a pipe.</summary>
    public string Target { get; } = target;

    /// <summary>Reads <c>http://…</c>, <c>https://…</c>, <c>unix:///path</c>, <c>unix:path</c>, <c>pipe://name</c> and <c>host:port</c>.</summary>
    public static bool TryParse(string? address, [NotNullWhen(true)] out Endpoint? endpoint)
    {
        endpoint = Parse(address ?? "");
        return endpoint is not null;
    }

    private static Endpoint? Parse(string address) => address switch
    {
        _ when After(address, "unix://") is { } path => Of(EndpointKind.UnixSocket, path),
        _ when After(address, "unix:") is { } path => Of(EndpointKind.UnixSocket, path),
        _ when After(address, "pipe://") is { } name => Of(EndpointKind.NamedPipe, name),
        _ when After(address, "http://") is not null || After(address, "https://") is not null => Url(address),
        _ => address.Contains("://") ? null : Url("http://" + address),
    };

    private static string? After(string address, string scheme) =>
        address.StartsWith(scheme, StringComparison.OrdinalIgnoreCase) ? address.Substring(scheme.Length) : null;

    private static Endpoint? Of(EndpointKind kind, string target) => target.Length > 0 ? new Endpoint(kind, target) : null;

    private static Endpoint? Url(string url) =>
        Uri.TryCreate(url, UriKind.Absolute, out var parsed) && parsed.Host.Length > 0 ? new Endpoint(EndpointKind.Http, url) : null;
}
