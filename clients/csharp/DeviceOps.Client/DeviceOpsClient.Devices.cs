using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Processing.V1;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Copies or moves a blob to another tier of memory or device.</summary>
    /// <param name="transfer">What, and where to.</param>
    /// <param name="jobOptions">Priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<BlobTransferReport> TransferBlobAsync(BlobTransfer transfer, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { BlobTransfer = transfer }, jobOptions, update => update.BlobTransferReport, cancellationToken);

    /// <summary>Measures a device.</summary>
    /// <param name="benchmark">Which device and what.</param>
    /// <param name="jobOptions">Priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<DeviceBenchmarkReport> BenchmarkDeviceAsync(DeviceBenchmark benchmark, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { DeviceBenchmark = benchmark }, jobOptions, update => update.DeviceBenchmarkReport, cancellationToken);

    /// <summary>Gives a device a fresh worker process.</summary>
    /// <param name="reset">Which device.</param>
    /// <param name="jobOptions">Priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<DeviceResetReport> ResetDeviceAsync(DeviceReset reset, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { DeviceReset = reset }, jobOptions, update => update.DeviceResetReport, cancellationToken);
}
