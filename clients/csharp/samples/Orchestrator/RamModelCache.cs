using System.IO.MemoryMappedFiles;
using DeviceOps.Api.Model.V1;
using DeviceOps.Client;

namespace Orchestrator;

/// <summary>
/// Model files that this process keeps in RAM, for loads that touch no disk. They lie in a folder of a RAM disk (<c>/dev/shm</c>) inside a blob root
/// of the server. This process maps each file and registers it as a blob; the server loads the model from these blobs and keeps no copy.
/// </summary>
internal sealed class RamModelCache(DeviceOpsClient client, string folder) : IAsyncDisposable
{
    private readonly Dictionary<string, CachedModel> models = [];
    private long generation;

    /// <summary>Brings a model's files into RAM, and makes them known to the server.</summary>
    public async Task<Model> AddAsync(string modelId, string source, CancellationToken stop)
    {
        var cached = new CachedModel(Path.Combine(folder, modelId));
        models.Add(modelId, cached);
        foreach (var file in Directory.EnumerateFiles(source, "*", SearchOption.AllDirectories))
        {
            await cached.AddAsync(client, file, Path.GetRelativePath(source, file), stop);
        }
        generation++;
        var request = new RegisterModelRequest { ModelId = modelId, BlobSource = cached.Source, RequestId = Guid.NewGuid().ToString() };
        return (await client.Models.RegisterModelAsync(request, cancellationToken: stop)).Model;
    }

    /// <summary>Bytes in RAM.</summary>
    public long SizeBytes => models.Values.Sum(model => model.SizeBytes);

    /// <summary>Where this cache and the server disagree. Asked before memory is let go of, and after either side has restarted.</summary>
    public async Task<IReadOnlyList<ModelCacheMismatch>> ReconcileAsync(CancellationToken stop)
    {
        var request = new ReconcileModelCacheRequest { CacheGeneration = generation };
        foreach (var (modelId, cached) in models)
        {
            request.Entries.Add(cached.Blobs.Select(blob => new ModelCacheEntry
            {
                ModelId = modelId,
                BlobId = blob.Id,
                Generation = blob.Blob.Generation,
                Sha256 = blob.Blob.Sha256,
            }));
        }
        return (await client.Models.ReconcileModelCacheAsync(request, cancellationToken: stop)).Mismatches;
    }

    /// <summary>Lets go of a model: the server forgets it first, then its RAM is free.</summary>
    public async Task EvictAsync(string modelId, CancellationToken stop)
    {
        await client.Models.ForgetModelAsync(new ForgetModelRequest { ModelId = modelId }, cancellationToken: stop);
        if (models.Remove(modelId, out var cached))
        {
            await cached.DisposeAsync();
        }
        generation++;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var cached in models.Values)
        {
            await cached.DisposeAsync();
        }
        models.Clear();
    }

    /// <summary>The files of one model, mapped and registered.</summary>
    private sealed class CachedModel(string folder) : IAsyncDisposable
    {
        private readonly List<MemoryMappedFile> maps = [];

        /// <summary>Which blob holds which file of the model.</summary>
        public ModelBlobSource Source { get; } = new();

        public List<MappedBlob> Blobs { get; } = [];

        public long SizeBytes => Blobs.Sum(blob => blob.Blob.SizeBytes);

        public async Task AddAsync(DeviceOpsClient client, string source, string name, CancellationToken stop)
        {
            var path = Path.Combine(folder, name);
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.Copy(source, path, overwrite: true);
            maps.Add(MemoryMappedFile.CreateFromFile(path, FileMode.Open));
            var blob = await client.Blobs.RegisterAsync(path, cancellationToken: stop);
            Blobs.Add(blob);
            Source.Files.Add(new ModelBlobFile { Path = name.Replace('\\', '/'), BlobId = blob.Id });
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var blob in Blobs)
            {
                await blob.DisposeAsync();
            }
            maps.ForEach(map => map.Dispose());
            Directory.Delete(folder, recursive: true);
        }
    }
}
