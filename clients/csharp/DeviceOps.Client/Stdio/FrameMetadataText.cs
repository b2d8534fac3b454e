using DeviceOps.Api.Stdio.V1;
using Google.Protobuf.Collections;
using Grpc.Core;

namespace DeviceOps.Client.Stdio;

/// <summary>Metadata of calls: gRPC has bytes under keys that end in <c>-bin</c>, frames have base64.</summary>
internal static class FrameMetadataText
{
    /// <summary>The trailer in which gRPC has the serialised <c>google.rpc.Status</c>; frames have a field for it.</summary>
    public const string DetailsKey = "grpc-status-details-bin";

    /// <summary>The entries as frames have them.</summary>
    public static IEnumerable<FrameMetadata> ToFrame(Metadata? entries) =>
        (entries ?? []).Select(entry => new FrameMetadata
        {
            Key = entry.Key,
            Value = entry.IsBinary ? Convert.ToBase64String(entry.ValueBytes) : entry.Value,
        });

    /// <summary>How a call ended. Trailers that gRPC cannot have are left out: the status still counts.</summary>
    public static CallEnd EndOf(FrameClose close)
    {
        var trailers = FromFrame(close.Trailers);
        if (!close.StatusDetails.IsEmpty && trailers.Get(DetailsKey) is null)
        {
            trailers.Add(DetailsKey, close.StatusDetails.ToByteArray());
        }
        var known = close.StatusCode is >= (int)StatusCode.OK and <= (int)StatusCode.Unauthenticated;
        return new CallEnd(new Status(known ? (StatusCode)close.StatusCode : StatusCode.Unknown, close.StatusMessage), trailers);
    }

    private static Metadata FromFrame(RepeatedField<FrameMetadata> entries)
    {
        var found = new Metadata();
        foreach (var entry in entries)
        {
            try
            {
                found.Add(entry.Key.EndsWith("-bin", StringComparison.Ordinal)
                    ? new Metadata.Entry(entry.Key, Bytes(entry.Value))
                    : new Metadata.Entry(entry.Key, entry.Value));
            }
            catch (Exception error) when (error is FormatException or ArgumentException)
            {
                continue;
            }
        }
        return found;
    }

    private static byte[] Bytes(string value) => Convert.FromBase64String(value.PadRight((value.Length + 3) / 4 * 4, '='));
}
