using DeviceOps.Api.Memory.V1;
using DeviceOps.Client;

namespace Orchestrator;

/// <summary>What this process leaves to the server, and keeps free for a load.</summary>
internal sealed class Budget(DeviceOpsClient client, string poolId)
{
    /// <summary>Leaves some memory of the pool to this process.</summary>
    public async Task<MemoryPool> LeaveAsync(long headroomBytes, CancellationToken stop)
    {
        var request = new SetMemoryBudgetRequest { MemoryPoolId = poolId, MemoryBudget = new MemoryBudget { HeadroomBytes = headroomBytes } };
        return (await client.Memory.SetMemoryBudgetAsync(request, cancellationToken: stop)).MemoryPool;
    }

    /// <summary>Keeps memory free for a load.</summary>
    public async Task<Reservation> ReserveAsync(long sizeBytes, CancellationToken stop)
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
}
