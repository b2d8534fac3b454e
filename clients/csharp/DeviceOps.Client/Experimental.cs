#if !NET8_0_OR_GREATER
namespace System.Diagnostics.CodeAnalysis;

/// <summary>The compiler knows this attribute by its name; .NET Standard 2.1 does not have it.</summary>
[AttributeUsage(AttributeTargets.All, Inherited = false)]
internal sealed class ExperimentalAttribute(string diagnosticId) : Attribute
{
    public string DiagnosticId { get; } = diagnosticId;

    public string? UrlFormat { get; set; }
}
#endif
