using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf.Reflection;

namespace DeviceOps.Client.Calls;

/// <summary>The unary methods that change nothing, read from the scope that each method of the contract declares.</summary>
internal static class Methods
{
    /// <summary>Methods that may be sent again after any break and need no longer than a look.</summary>
    public static readonly IReadOnlyList<MethodDescriptor> Reads =
    [
        .. Services()
            .SelectMany(service => service.Methods)
            .Where(method => !method.IsClientStreaming && !method.IsServerStreaming)
            .Where(method => method.GetOptions()?.GetExtension(AccessExtensions.Scope) == AccessScope.Read),
    ];

    private static readonly HashSet<string> ReadPaths =
        [.. Reads.Select(method => $"/{method.Service.FullName}/{method.Name}")];

    /// <summary>Whether a path, <c>/package.Service/Method</c>, is one of <see cref="Reads"/>.</summary>
    public static bool IsRead(string path) => ReadPaths.Contains(path);

    private static ServiceDescriptor[] Services() =>
    [
        DeviceService.Descriptor, MemoryService.Descriptor, ModelService.Descriptor,
        InferenceService.Descriptor, PostprocessingService.Descriptor, ProcessingService.Descriptor,
    ];
}
