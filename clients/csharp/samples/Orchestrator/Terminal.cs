using DeviceOps.Api.Common.V1;

namespace Orchestrator;

/// <summary>One line of the terminal that follows a job.</summary>
internal sealed class Terminal : IProgress<JobEvent>
{
    public void Report(JobEvent told)
    {
        if (told.Progress is { } progress)
        {
            Console.Write($"\r{progress.Stage,-12} {progress.CompletedRatio,5:P0}  {progress.Completed} of {progress.Total} {progress.Unit}   ");
        }
        if (told.Terminal)
        {
            Console.WriteLine();
        }
    }
}
