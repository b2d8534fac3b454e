// Measures the client as bench/csharp_client.py asks. `first HOST:PORT CALLS` writes the milliseconds to the first event of each call, one a
// line. `events HOST:PORT` writes the bytes that following one event allocates, and those of a bare WatchJob.

using System.Diagnostics;
using System.Globalization;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using DeviceOps.Client;
using Grpc.Core;

using var client = DeviceOpsClient.Connect(args[1]);
if (args[0] == "first")
{
    for (var call = 0; call < int.Parse(args[2], CultureInfo.InvariantCulture); call++)
    {
        Console.WriteLine((await FirstEventMs()).ToString(CultureInfo.InvariantCulture));
    }
    return;
}
var job = client.GenerateAsync(Small(steps: 400));
await job.WaitAsync();
List<double> followed = [], bare = [];
for (var round = 0; round < 12; round++)
{
    bare.Add(await Raw(job.JobId));
    followed.Add(await Followed(job.JobId));
}
// The first rounds warm up: pools grow and code is compiled.
Console.WriteLine($"{Median(followed.Skip(3)).ToString(CultureInfo.InvariantCulture)} {Median(bare.Skip(3)).ToString(CultureInfo.InvariantCulture)}");

static double Median(IEnumerable<double> samples) => samples.Order().ElementAt(samples.Count() / 2);

async Task<double> FirstEventMs()
{
    var begin = Stopwatch.GetTimestamp();
    double? first = null;
    await foreach (var told in client.GenerateAsync(Small(steps: 1)))
    {
        first ??= Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
    }
    return first!.Value;
}

async Task<double> Followed(string jobId)
{
    var before = GC.GetTotalAllocatedBytes(precise: true);
    var count = 0;
    await foreach (var told in client.AttachAsync(jobId))
    {
        count++;
    }
    return (GC.GetTotalAllocatedBytes(precise: true) - before) / (double)count;
}

async Task<double> Raw(string jobId)
{
    var before = GC.GetTotalAllocatedBytes(precise: true);
    var count = 0;
    using var call = client.Processing.WatchJob(new WatchJobRequest { JobId = jobId });
    await foreach (var told in call.ResponseStream.ReadAllAsync())
    {
        count++;
    }
    return (GC.GetTotalAllocatedBytes(precise: true) - before) / (double)count;
}

static Generation Small(int steps) =>
    new() { Prompt = "a red apple", WidthPx = 64, HeightPx = 64, Sampling = new Sampling { Steps = steps, Seed = 7 } };
