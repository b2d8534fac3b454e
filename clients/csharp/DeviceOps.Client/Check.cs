using System.Diagnostics.CodeAnalysis;

namespace DeviceOps.Client;

/// <summary>Checks of arguments, for targets whose library lacks them.</summary>
internal static class Check
{
    public static void NotNull([NotNull] object? value, string name)
    {
        if (value is null)
        {
            throw new ArgumentNullException(name);
        }
    }

    public static void NotEmpty([NotNull] string? value, string name)
    {
        if (string.IsNullOrEmpty(value))
        {
            throw new ArgumentException("must not be empty", name);
        }
    }
}
