using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Device.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Xunit;

namespace DeviceOps.Client.Tests;

/// <summary>Reasons that a healthy server gives on demand, each decoded from a real refusal.</summary>
public sealed class RefusalTests(SharedServer server)
{
    private const long Endless = 1L << 60;

    /// <summary>The reasons alone; no call is made while the tests are discovered.</summary>
    public static TheoryData<ErrorReason> Raised => [.. new RefusalTests(null!).Calls().Keys];

    private DeviceOpsClient Client => server.Client;

    [Theory]
    [MemberData(nameof(Raised))]
    public async Task TheServersReasonArrives(ErrorReason reason)
    {
        var error = await Record.ExceptionAsync(Calls()[reason]);
        Assert.True(error is DeviceOpsException told && told.Reason == reason, $"{reason} was asked for, and came {error}");
    }

    private Dictionary<ErrorReason, Func<Task>> Calls() => new()
    {
        [ErrorReason.InvalidField] = () => Generate(Asking.Small(steps: 0)),
        [ErrorReason.UnsupportedCombination] = () => Generate(new Generation { Sampling = new Sampling { Seed = 1, Seeds = { 1 } } }),
        [ErrorReason.DeviceNotFound] = () => Create(new BlobSpec { SizeBytes = 1, Tier = BlobTier.Device, DeviceId = "cuda:9" }),
        [ErrorReason.MemoryPoolNotFound] = () => Client.Memory.GetMemoryPoolAsync(new GetMemoryPoolRequest { MemoryPoolId = "none" }).ResponseAsync,
        [ErrorReason.ModelNotFound] = () => Client.Models.GetModelAsync(new GetModelRequest { ModelId = "none" }).ResponseAsync,
        [ErrorReason.LoadedModelNotFound] = () => Client.Models.GetLoadedModelAsync(new GetLoadedModelRequest { LoadedModelId = "none" }).ResponseAsync,
        [ErrorReason.BlobNotFound] = () => Client.Blobs.ReadBytesAsync("none", null, Asking.Stop),
        [ErrorReason.ReservationNotFound] = () => Client.Memory.GetReservationAsync(new GetReservationRequest { ReservationId = "none" }).ResponseAsync,
        [ErrorReason.JobNotFound] = () => Client.AttachAsync("none", 0, Asking.Stop).WaitAsync(null, Asking.Stop),
        [ErrorReason.SessionNotFound] = () => Create(new BlobSpec { SizeBytes = 1, SessionId = "none" }),
        [ErrorReason.NodeNotFound] = () => Client.GenerateAsync(Elsewhere(), null, Asking.Stop),
        [ErrorReason.PathNotFound] = () => Client.Blobs.RegisterAsync("/dev/shm/none", "", Asking.Stop),
        [ErrorReason.PathOutsideRoots] = () => Client.Blobs.RegisterAsync("/etc/hostname", "", Asking.Stop),
        [ErrorReason.IdTaken] = RegisterTwiceAsync,
        [ErrorReason.RequestIdReused] = UseAnIdTwiceAsync,
        [ErrorReason.IllegalState] = async () => await Client.Blobs.ReadBytesAsync((await Create(new BlobSpec { SizeBytes = 2 })).Id, null, Asking.Stop),
        [ErrorReason.EtagMismatch] = ReadAnotherGenerationAsync,
        [ErrorReason.BlobInUse] = DeleteWhileReadingAsync,
        [ErrorReason.BlobCorrupt] = () => Client.Blobs.UploadAsync(new MemoryStream([1, 2, 3]), new BlobSpec { Sha256 = new string('0', 64) }, Asking.Stop),
        [ErrorReason.MessageTooLarge] = WriteTooMuchAsync,
        [ErrorReason.StorageFull] = () => Create(new BlobSpec { SizeBytes = Endless }),
        [ErrorReason.HostOutOfMemory] = () => Create(new BlobSpec { SizeBytes = Endless, Tier = BlobTier.Host }),
        [ErrorReason.ReservationExpired] = OutliveAReservationAsync,
        [ErrorReason.NotSupportedOnDevice] = () => Client.Devices.UpdateDeviceAsync(PowerLimit()).ResponseAsync,
        [ErrorReason.BadImage] = () => Generate(new Generation { InitImage = new InitImage { Image = new ImageInput { Data = ByteString.CopyFrom(1, 2, 3) } } }),
        [ErrorReason.DependencyCycle] = () => Client.Models.RegisterModelAsync(Circle()).ResponseAsync,
        [ErrorReason.CheckpointCorrupt] = ContinueFromNothingAsync,
        [ErrorReason.QuotaExceeded] = FillASessionAsync,
        [ErrorReason.RunTimeout] = () => Client.GenerateAsync(Hurried(), null, Asking.Stop),
    };

    private Task Generate(Generation generation) => Client.GenerateAsync(generation, null, Asking.Stop);

    private async Task<Blob> Create(BlobSpec spec) =>
        (await Client.Memory.CreateBlobAsync(new CreateBlobRequest { BlobSpec = spec }, cancellationToken: Asking.Stop)).Blob;

    private static GenerateRequest Elsewhere() => new()
    {
        Generation = Asking.Small(),
        Options = new JobOptions { Devices = new DeviceSelector { NodeIds = { "elsewhere" } } },
    };

    private static GenerateRequest Hurried() => new()
    {
        Generation = Asking.Small(steps: 500),
        Options = new JobOptions { RunTimeout = Duration.FromTimeSpan(TimeSpan.FromMilliseconds(50)) },
    };

    private static UpdateDeviceRequest PowerLimit() => new()
    {
        DeviceId = "cpu",
        Settings = new DeviceSettings { PowerLimitWatts = 50 },
        UpdateMask = new FieldMask { Paths = { "power_limit_watts" } },
        ValidateOnly = true,
    };

    private static RegisterModelRequest Circle() => new()
    {
        ModelId = "round",
        PartsSource = new ModelPartsSource { BaseModelId = "emoji-sd", Components = { new ComponentSource { ComponentId = "vae", ModelId = "round" } } },
    };

    /// <summary>A job that was cancelled before it began has no checkpoint.</summary>
    private async Task ContinueFromNothingAsync()
    {
        await using var session = await Client.OpenSessionAsync(cancellationToken: Asking.Stop);
        await session.PauseAsync(cancellationToken: Asking.Stop);
        var job = await session.SubmitAsync(new SubmitJobRequest { Spec = new JobSpec { Generation = Asking.Small() } }, Asking.Stop);
        await Client.CancelJobAsync(job.Id, "a test", Asking.Stop);
        await Client.ContinueAsync(job.Id, cancellationToken: Asking.Stop).WaitAsync(null, Asking.Stop);
    }

    private async Task FillASessionAsync()
    {
        var settings = new SessionSettings { Limits = new SessionLimits { MaxQueuedJobs = 1 } };
        var session = await Client.OpenSessionAsync(settings, cancellationToken: Asking.Stop);
        await session.PauseAsync(cancellationToken: Asking.Stop);
        var request = new SubmitJobRequest { Spec = new JobSpec { Generation = Asking.Small() } };
        try
        {
            await session.SubmitAsync(request, Asking.Stop);
            await session.SubmitAsync(request, Asking.Stop);
        }
        finally
        {
            await session.CloseAsync(SessionCloseAction.CancelAll, Asking.Stop);
        }
    }

    private async Task UseAnIdTwiceAsync()
    {
        var request = new GenerateRequest { Generation = Asking.Small(), RequestId = Guid.NewGuid().ToString() };
        await Client.GenerateAsync(request, null, Asking.Stop);
        request.Generation.Prompt = "another";
        await Client.GenerateAsync(request, null, Asking.Stop);
    }

    private async Task RegisterTwiceAsync()
    {
        var folder = Directory.CreateDirectory($"/dev/shm/deviceops-{Guid.NewGuid():N}");
        try
        {
            var (one, two) = (Path.Combine(folder.FullName, "1"), Path.Combine(folder.FullName, "2"));
            await File.WriteAllBytesAsync(one, [1], Asking.Stop);
            await File.WriteAllBytesAsync(two, [2], Asking.Stop);
            await using var first = await Client.Blobs.RegisterAsync(one, cancellationToken: Asking.Stop);
            await Client.Blobs.RegisterAsync(
                new RegisterBlobRequest { BlobId = first.Id, File = new MappedFile { Path = two }, Generation = 1 }, Asking.Stop);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private async Task ReadAnotherGenerationAsync()
    {
        var blob = await Client.Blobs.UploadAsync(new MemoryStream([1]), cancellationToken: Asking.Stop);
        using var call = Client.Memory.ReadBlob(new ReadBlobRequest { BlobId = blob.Id, ExpectedGeneration = 2 }, cancellationToken: Asking.Stop);
        await call.ResponseStream.MoveNext(Asking.Stop);
    }

    private async Task DeleteWhileReadingAsync()
    {
        var blob = await Client.Blobs.UploadAsync(new MemoryStream(new byte[8 << 20]), cancellationToken: Asking.Stop);
        using var call = Client.Memory.ReadBlob(new ReadBlobRequest { BlobId = blob.Id }, cancellationToken: Asking.Stop);
        await call.ResponseStream.MoveNext(Asking.Stop);
        await Client.Memory.DeleteBlobAsync(new DeleteBlobRequest { BlobId = blob.Id, OnlyIfUnused = true }, cancellationToken: Asking.Stop);
    }

    private async Task WriteTooMuchAsync()
    {
        var blob = await Create(new BlobSpec { SizeBytes = 2 << 20 });
        var chunk = new BlobChunk { Data = ByteString.CopyFrom(new byte[(1 << 20) + 1]) };
        await Client.Memory.WriteBlobChunkAsync(new WriteBlobChunkRequest { BlobId = blob.Id, Chunk = chunk }, cancellationToken: Asking.Stop);
    }

    private async Task OutliveAReservationAsync()
    {
        var asked = new CreateReservationRequest { MemoryPoolId = "host", SizeBytes = 1, TimeToLive = Duration.FromTimeSpan(TimeSpan.FromSeconds(1)) };
        var reservation = (await Client.Memory.CreateReservationAsync(asked, cancellationToken: Asking.Stop)).Reservation;
        using var call = Client.Processing.WatchEvents(new WatchEventsRequest(), cancellationToken: Asking.Stop);
        while (reservation.State == ReservationState.Held)
        {
            await call.ResponseStream.MoveNext(Asking.Stop);
            var again = new GetReservationRequest { ReservationId = reservation.Id };
            reservation = (await Client.Memory.GetReservationAsync(again, cancellationToken: Asking.Stop)).Reservation;
        }
        await Client.Memory.RenewReservationAsync(new RenewReservationRequest { ReservationId = reservation.Id }, cancellationToken: Asking.Stop);
    }
}
