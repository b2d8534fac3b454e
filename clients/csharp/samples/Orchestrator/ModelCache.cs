using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Client;

namespace Orchestrator;

/// <summary>What this process believes the server has loaded, and the calls that keep that true.</summary>
internal sealed class ModelCache(DeviceOpsClient client)
{
    private readonly HashSet<string> believed = [];

    /// <summary>Leaves some memory to this process.</summary>
    public async Task<MemoryPool> SetBudgetAsync(string poolId, long headroomBytes, CancellationToken stop)
    {
        var request = new SetMemoryBudgetRequest { MemoryPoolId = poolId, MemoryBudget = new MemoryBudget { HeadroomBytes = headroomBytes } };
        return (await client.Memory.SetMemoryBudgetAsync(request, cancellationToken: stop)).MemoryPool;
    }

    /// <summary>Keeps memory free for a load.</summary>
    public async Task<Reservation> ReserveAsync(string poolId, long sizeBytes, CancellationToken stop)
    {
        var request = new CreateReservationRequest
        {
            MemoryPoolId = poolId,
            SizeBytes = sizeBytes,
            Purpose = "load",
            AllowEviction = true,
            RequestId = Guid.NewGuid().ToString(),
        };
        return (await client.Memory.CreateReservationAsync(request, cancellationToken: stop)).Reservation;
    }

    /// <summary>Loads a model into what was reserved.</summary>
    public async Task<LoadedModel> LoadAsync(string modelId, string reservationId, Action<JobEvent> show, CancellationToken stop)
    {
        var job = client.LoadModelAsync(new ModelLoad { ModelId = modelId }, new JobOptions { ReservationId = reservationId }, stop);
        await foreach (var told in job)
        {
            show(told);
        }
        believed.Add(job.Result.Id);
        return job.Result;
    }

    /// <summary>Where the server's list of loaded models differs from what this process believes; afterwards it believes the server.</summary>
    public async Task<IReadOnlyList<string>> ReconcileAsync(CancellationToken stop)
    {
        var answer = await client.Models.ListLoadedModelsAsync(new ListLoadedModelsRequest(), cancellationToken: stop);
        var there = answer.LoadedModels.Select(model => model.Id).ToHashSet();
        List<string> differences =
        [
            .. believed.Except(there).Select(id => $"{id} is gone"),
            .. there.Except(believed).Select(id => $"{id} was loaded by another caller"),
        ];
        believed.Clear();
        believed.UnionWith(there);
        return differences;
    }

    /// <summary>Unloads a model; running jobs end first.</summary>
    public async Task EvictAsync(string loadedModelId, CancellationToken stop)
    {
        await client.Models.UnloadModelAsync(new UnloadModelRequest { LoadedModelId = loadedModelId }, cancellationToken: stop);
        believed.Remove(loadedModelId);
    }
}
