using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Processing.V1;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Loads a model.</summary>
    /// <param name="load">Which model, and how.</param>
    /// <param name="jobOptions">Devices, priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<LoadedModel> LoadModelAsync(ModelLoad load, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { ModelLoad = load }, jobOptions, update => update.LoadedModel, cancellationToken);

    /// <summary>Looks for models in the server's folders.</summary>
    /// <param name="scan">Where, and how thoroughly.</param>
    /// <param name="jobOptions">Priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<ModelScanReport> ScanModelsAsync(ModelScan scan, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { ModelScan = scan }, jobOptions, update => update.ModelScanReport, cancellationToken);

    /// <summary>Checks a model: its files, its tensors, and whether it fits a device.</summary>
    /// <param name="validation">Which model, and how deeply.</param>
    /// <param name="jobOptions">Devices, priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<ModelValidationReport> ValidateModelAsync(ModelValidation validation, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { ModelValidation = validation }, jobOptions, update => update.ModelValidationReport, cancellationToken);

    /// <summary>Writes a model in another format or precision, and registers what was written.</summary>
    /// <param name="conversion">Which model, into what, and where to.</param>
    /// <param name="jobOptions">Priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job; nothing is left behind.</param>
    /// <returns>The job.</returns>
    public RunningJob<ModelConversionReport> ConvertModelAsync(ModelConversion conversion, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { ModelConversion = conversion }, jobOptions, update => update.ModelConversionReport, cancellationToken);

    /// <summary>Measures a model on a device.</summary>
    /// <param name="benchmark">Which model, and what to measure.</param>
    /// <param name="jobOptions">Devices, priority, deadlines. Null: the defaults.</param>
    /// <param name="cancellationToken">Stops the job.</param>
    /// <returns>The job.</returns>
    public RunningJob<ModelBenchmarkReport> BenchmarkModelAsync(ModelBenchmark benchmark, JobOptions? jobOptions = null, CancellationToken cancellationToken = default) =>
        Run(new JobSpec { ModelBenchmark = benchmark }, jobOptions, update => update.ModelBenchmarkReport, cancellationToken);
}
