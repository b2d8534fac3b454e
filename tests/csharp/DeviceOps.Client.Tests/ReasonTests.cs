using DeviceOps.Api.Common.V1;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Each reason of the contract is raised by a running server in one of these tests, or listed with what is missing for it in
/// tests/csharp/unraised.txt; a test in Python reads the list too, and finds a reason that the server has learned to raise.</summary>
public sealed class ReasonTests
{
    [Fact]
    public void EveryReasonIsRaisedByAServerOrIsListed()
    {
        var raised = RefusalTests.Raised.Select(row => row.Data).Concat(FailureTests.Raised).Concat(TroubleTests.Raised).Concat(EveryMethodTests.Raised).ToList();
        var listed = Listed().ToList();
        Assert.Empty(raised.Intersect(listed));
        Assert.Equal(ErrorTests.Reasons.Select(row => row.Data).Order(), raised.Concat(listed).Distinct().Order());
    }

    private static IEnumerable<ErrorReason> Listed()
    {
        using var reader = new StreamReader(typeof(ReasonTests).Assembly.GetManifestResourceStream("unraised.txt")!);
        foreach (var line in reader.ReadToEnd().Split('\n').Where(line => line.Length > 0 && !line.StartsWith('#')))
        {
            yield return ErrorDetails.ReasonOf(line.Split(' ')[0]);
        }
    }
}
