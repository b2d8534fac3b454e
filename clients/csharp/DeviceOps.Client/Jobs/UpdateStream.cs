using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Processing.V1;
using Grpc.Core;

namespace DeviceOps.Client.Jobs;

/// <summary>One open call that tells of a job.</summary>
internal abstract class UpdateStream : IDisposable
{
    /// <summary>The next update; null when the server has ended the call.</summary>
    public abstract Task<WatchJobResponse?> NextAsync(CancellationToken stop);

    public abstract void Dispose();
}

/// <summary>WatchJob.</summary>
internal sealed class WatchStream(AsyncServerStreamingCall<WatchJobResponse> call) : UpdateStream
{
    public override async Task<WatchJobResponse?> NextAsync(CancellationToken stop) =>
        await call.ResponseStream.MoveNext(stop).ConfigureAwait(false) ? call.ResponseStream.Current : null;

    public override void Dispose() => call.Dispose();
}

/// <summary>Generate, whose messages have the same bytes as those of WatchJob.</summary>
internal sealed class GenerateStream(AsyncServerStreamingCall<GenerateResponse> call) : UpdateStream
{
    public override async Task<WatchJobResponse?> NextAsync(CancellationToken stop)
    {
        if (!await call.ResponseStream.MoveNext(stop).ConfigureAwait(false))
        {
            return null;
        }
        var message = call.ResponseStream.Current;
        var update = new WatchJobResponse { Event = message.Event };
        switch (message.OutputCase)
        {
            case GenerateResponse.OutputOneofCase.Image:
                update.Image = message.Image;
                break;
            case GenerateResponse.OutputOneofCase.Result:
                update.GenerationResult = message.Result;
                break;
        }
        return update;
    }

    public override void Dispose() => call.Dispose();
}

/// <summary>SubmitJob, then WatchJob of the job that it answers.</summary>
internal sealed class SubmitStream(ProcessingService.ProcessingServiceClient processing, SubmitJobRequest request, CancellationToken call) : UpdateStream
{
    private WatchStream? watch;

    public override async Task<WatchJobResponse?> NextAsync(CancellationToken stop)
    {
        if (watch is null)
        {
            var answer = await processing.SubmitJobAsync(request, cancellationToken: call).ResponseAsync.ConfigureAwait(false);
            watch = new WatchStream(processing.WatchJob(new WatchJobRequest { JobId = answer.Job.Id }, cancellationToken: call));
        }
        return await watch.NextAsync(stop).ConfigureAwait(false);
    }

    public override void Dispose() => watch?.Dispose();
}
