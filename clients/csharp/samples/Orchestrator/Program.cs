// The co-operation of an orchestrator with the server: a model's files in this process's RAM, a budget, a reservation, a load out of that RAM, a
// picture with live progress, a comparison of what each side believes, and an eviction. Ctrl-C stops the running job and waits for the proof.
//
//     deviceops serve --blob-root /dev/shm/models
//     dotnet run -- http://127.0.0.1:50051 "a red apple" apple.png /path/to/a/model /dev/shm/models

using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Client;
using Orchestrator;

if (args is not [var address, var prompt, var file, var source, var folder])
{
    Console.Error.WriteLine("usage: Orchestrator ADDRESS PROMPT FILE MODEL_FOLDER CACHE_FOLDER");
    return 2;
}
using var stop = new CancellationTokenSource();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    stop.Cancel();
};

using var client = DeviceOpsClient.Connect(address);
await using var cache = new RamModelCache(client, folder);
var budget = new Budget(client, "host");
try
{
    var model = await cache.AddAsync("cached", source, stop.Token);
    Console.WriteLine($"cached: {cache.SizeBytes / (1 << 20)} MiB of {model.Family}");

    var pool = await budget.LeaveAsync(headroomBytes: 256 << 20, stop.Token);
    Console.WriteLine($"budget: {pool.AvailableBytes / (1 << 20)} MiB may be used of {pool.Id}");
    var reservation = await budget.ReserveAsync(2 * model.SizeBytes, stop.Token);
    Console.WriteLine($"reserved: {reservation.SizeBytes / (1 << 20)} MiB");

    var load = client.LoadModelAsync(new ModelLoad { ModelId = model.Id }, new JobOptions { ReservationId = reservation.Id }, stop.Token);
    var loaded = await load.WaitAsync(new Terminal());
    Console.WriteLine($"loaded: {loaded.Id} on {loaded.DeviceId}");

    var job = client.GenerateAsync(new Generation { Prompt = prompt, ModelId = model.Id, RequireLoadedModel = true }, stop.Token);
    var result = await job.WaitAsync(new Terminal());
    await client.SaveImageAsync(result.Images[0], file, stop.Token);
    Console.WriteLine($"picture: {file}");

    var differences = await cache.ReconcileAsync(stop.Token);
    Console.WriteLine($"reconciled: {differences.Count} differences");
    foreach (var difference in differences)
    {
        Console.WriteLine($"  {difference.Kind}: {difference.Message}");
    }
    await client.Models.UnloadModelAsync(new UnloadModelRequest { LoadedModelId = loaded.Id }, cancellationToken: stop.Token);
    await cache.EvictAsync(model.Id, stop.Token);
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
