"""Streams the loaded models, and every change of one."""

from collections.abc import AsyncIterator, Callable, Set
from dataclasses import dataclass

from deviceops.model.v1 import loaded_model_pb2
from deviceops.model.v1 import model_service_pb2 as pb
from domains.model.loaded import ENDED, LoadedChange, LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.loaded_watch import watching
from server import convert
from server.model.messages import to_loaded_state

ToMessage = Callable[[LoadedModel], loaded_model_pb2.LoadedModel]


@dataclass(frozen=True)
class Wanted:
    """A filter of loaded models. Empty sets and texts, and None, accept everything."""

    device_ids: Set[str]
    model_ids: Set[str]
    states: Set[int]
    pinned: bool | None
    session_id: str

    def __call__(self, one: LoadedModel) -> bool:
        """Whether a loaded model meets all conditions."""
        return (
            (not self.device_ids or one.device_id in self.device_ids)
            and (not self.model_ids or one.model_id in self.model_ids)
            and (not self.states or to_loaded_state(one) in self.states)
            and (self.pinned is None or one.pinned == self.pinned)
            and (not self.session_id or one.session_id == self.session_id)
        )


async def watch_loaded(
    loaded: LoadedModels, wanted_by: Callable[[], Wanted], to_message: ToMessage
) -> AsyncIterator[pb.WatchLoadedModelsResponse]:
    """The messages of a watch. `wanted_by` returns the filter of the request; its errors end the watch."""
    wanted = wanted_by()
    told: set[str] = set()
    with watching(loaded) as watch:
        for one in filter(wanted, loaded.everything()):
            told.add(one.id)
            # `watch` queues changes while the reader takes these messages.
            yield _response(to_message, LoadedChange(loaded=one, time_s=one.load_time_s))
        yield pb.WatchLoadedModelsResponse(in_sync=True)
        while True:
            change = await watch.next()
            fits = wanted(change.loaded)
            if fits or change.loaded.id in told:
                yield _response(to_message, change)
            # A model that ends or no longer passes the filter is sent once more, and then not again.
            (told.add if fits and change.loaded.state not in ENDED else told.discard)(change.loaded.id)


def _response(to_message: ToMessage, change: LoadedChange) -> pb.WatchLoadedModelsResponse:
    message = to_message(change.loaded)
    # Only ListLoadedModels and GetLoadedModel compare with the files.
    message.ClearField("outdated")
    return pb.WatchLoadedModelsResponse(
        loaded_model=message,
        event_time=convert.to_time(change.time_s) if change.time_s else None,
        cause_job_id=change.job_id,
    )
