using DeviceOps.Api.Processing.V1;

namespace DeviceOps.Client;

public sealed partial class DeviceOpsClient
{
    /// <summary>Opens a session: a share of the server with limits of its own, and one stream of the events of all its jobs.</summary>
    /// <param name="settings">Name, weight, limits, labels. Null: the defaults.</param>
    /// <param name="requestId">The same id gives the same session, also after a restart of the server. Empty: always a new session.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    /// <returns>The session. Disposing of it closes it; its jobs come to their end.</returns>
    /// <exception cref="DeviceOpsException">The server refused.</exception>
    public async Task<DeviceOpsSession> OpenSessionAsync(SessionSettings? settings = null, string requestId = "", CancellationToken cancellationToken = default)
    {
        Check.NotNull(requestId, nameof(requestId));
        var request = new OpenSessionRequest { Settings = settings, RequestId = IdFor(requestId) };
        var answer = await Processing.OpenSessionAsync(request, cancellationToken: cancellationToken).ResponseAsync.ConfigureAwait(false);
        return new DeviceOpsSession(this, options, logger, answer.Session.Id, owned: true);
    }

    /// <summary>Takes up a session that was opened elsewhere, or before this process started.</summary>
    /// <param name="sessionId">The session.</param>
    /// <returns>The session. Disposing of it leaves it open.</returns>
    public DeviceOpsSession AttachSession(string sessionId)
    {
        Check.NotEmpty(sessionId, nameof(sessionId));
        return new DeviceOpsSession(this, options, logger, sessionId, owned: false);
    }
}
