// The co-operation of an orchestrator with the server: a budget, a reservation, a load, a picture with live progress, a comparison of what
// each side believes is loaded, and an eviction. Ctrl-C stops the running job and waits for the server's proof.
//
//     dotnet run -- http://127.0.0.1:50051 "a red apple" apple.png

using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Client;
using Orchestrator;

var address = args.ElementAtOrDefault(0) ?? "http://127.0.0.1:50051";
var prompt = args.ElementAtOrDefault(1) ?? "a red apple";
var file = args.ElementAtOrDefault(2) ?? "apple.png";
using var stop = new CancellationTokenSource();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    stop.Cancel();
};

using var client = DeviceOpsClient.Connect(address);
var cache = new ModelCache(client);
try
{
    var pool = await cache.SetBudgetAsync("host", headroomBytes: 256 << 20, stop.Token);
    Console.WriteLine($"budget: {pool.AvailableBytes / (1 << 20)} MiB may be used of {pool.Id}");

    var reservation = await cache.ReserveAsync("host", 64 << 20, stop.Token);
    var loaded = await cache.LoadAsync("emoji-sd", reservation.Id, Show, stop.Token);
    Console.WriteLine($"loaded: {loaded.Id} on {loaded.DeviceId}");

    var job = client.GenerateAsync(new Generation { Prompt = prompt, ModelId = loaded.ModelId, RequireLoadedModel = true }, stop.Token);
    await foreach (var told in job)
    {
        Show(told);
    }
    await client.SaveImageAsync(job.Result.Images[0], file, stop.Token);
    Console.WriteLine($"picture: {file}");

    foreach (var difference in await cache.ReconcileAsync(stop.Token))
    {
        Console.WriteLine($"differs: {difference}");
    }
    await cache.EvictAsync(loaded.Id, stop.Token);
    Console.WriteLine("evicted");
}
catch (JobCancelledException error)
{
    Console.WriteLine($"stopped in {error.Proof?.Stage}");
    return 130;
}
catch (DeviceOpsException error)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
return 0;

static void Show(JobEvent told)
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
