"""Reads models ahead into the RAM tier, as callers hint, while nothing else needs the disk or the room.

A hint reserves nothing and takes nothing from others: it drops only models that earlier hints brought, and waits while a
device loads a model. Hints of a session replace its earlier ones; a model that no hint names any more is not read further.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import structlog

from domains.errors import DeviceOpsError, ErrorReason
from domains.inference.resolution.resolve import usable
from domains.model.catalogue import Catalogue
from domains.model.finding import ModelFinding
from domains.model.loaded import ENDED, LoadedChange, LoadedState, outdated
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.memory.host_loads import HostLoad, HostLoads, file_bytes
from domains.processing.sessions.session import SessionState, SessionView
from domains.system_errors import system_error

_log = structlog.get_logger()


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """A model that will be needed."""

    model_id: str
    need_in_s: float = 0.0
    """Seconds from now."""
    device_ids: tuple[str, ...] = ()
    """Where it will run. Empty: anywhere."""


class Hinted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to hints."""

    accepted: tuple[str, ...]
    """Models that are being read ahead, or will be."""
    ready: tuple[str, ...]
    """Models that are loaded where they will be needed."""
    findings: tuple[tuple[int, ModelFinding], ...]
    """Why the others are not read ahead, with the index of the hint."""


class Prefetching:
    """The hints of all sessions, and the one model that is read ahead at a time. One event loop."""

    def __init__(self, loads: HostLoads, loaded: LoadedModels, catalogue: Catalogue) -> None:
        self._loads = loads
        self._loaded = loaded
        self._catalogue = catalogue
        self._wanted: dict[str, dict[str, float]] = {}
        """By session: the accepted models, and when each is needed on the monotonic clock."""
        self._settled: set[str] = set()
        """Models that were read ahead, or cannot be now; they are not read again before the next hint."""
        self._changed = asyncio.Event()
        loaded.on_change.append(self._loaded_changed)

    def hint(self, session_id: str, hints: Sequence[Hint]) -> Hinted:
        """Replace the hints of a session. Raises MODEL_NOT_FOUND, and changes nothing then."""
        models = [self._catalogue.get(hint.model_id) for hint in hints]
        accepted: dict[str, float] = {}
        ready: list[str] = []
        findings: list[tuple[int, ModelFinding]] = []
        left = self._loads.models.budget_bytes()
        for index, (hint, model) in enumerate(zip(hints, models, strict=True)):
            if self._is_ready(model, hint):
                ready.append(model.id)
            elif (finding := self._obstacle(model, left)) is not None:
                findings.append((index, finding))
            else:
                accepted.setdefault(model.id, time.monotonic() + hint.need_in_s)
                left -= file_bytes(model)
        self._wanted[session_id] = accepted
        self._settled -= accepted.keys()
        self._changed.set()
        return Hinted(accepted=tuple(accepted), ready=tuple(dict.fromkeys(ready)), findings=tuple(findings))

    def session_changed(self, view: SessionView, before: SessionView | None) -> None:
        """Drop the hints of a session that takes no more jobs."""
        if view.session.state in (SessionState.CLOSING, SessionState.CLOSED):
            self._wanted.pop(view.session.id, None)
            self._changed.set()

    async def keep_up(self) -> None:
        """Read ahead what is hinted, in the order of their times, until cancelled."""
        while True:
            self._changed.clear()
            if (model := self._next()) is None:
                await self._changed.wait()
            else:
                await self._read(model)

    def _next(self) -> Model | None:
        """The model to read ahead next. None: there is none."""
        times = [pair for models in self._wanted.values() for pair in models.items() if pair[0] not in self._settled]
        for model_id, _ in sorted(times, key=lambda pair: pair[1]):
            model = self._catalogue.find(model_id)
            if model is not None and model.fault is None and self._loads.models.find(model) is None:
                return model
        return None

    async def _read(self, model: Model) -> None:
        async def keep_on() -> bool:
            while self._is_wanted(model.id) and self._a_device_loads():
                self._changed.clear()
                await self._changed.wait()
            return self._is_wanted(model.id)

        try:
            ask = HostLoad(ahead=True, keep=self._hinted())
            done = await self._loads.load(model, ask, lambda done, total: None, keep_on)
        except Exception as error:
            known = error if isinstance(error, DeviceOpsError) else system_error(error)
            if known is None:
                # A bug ends this reading only; the next one follows.
                _log.exception("a bug ended a reading ahead", model_id=model.id)
            else:
                why = {"reason": str(known.reason), "message": known.message}
                _log.info("a model is not read ahead", model_id=model.id, **why)
            self._settled.add(model.id)
            return
        if done is not None:
            self._settled.add(model.id)

    def _hinted(self) -> frozenset[str]:
        return frozenset(name for models in self._wanted.values() for name in models)

    def _is_wanted(self, model_id: str) -> bool:
        return model_id in self._hinted()

    def _a_device_loads(self) -> bool:
        """Whether a device reads a model now, which needs the disk."""
        return any(one.device_id and one.state is LoadedState.LOADING for one in self._loaded.everything())

    def _loaded_changed(self, change: LoadedChange) -> None:
        if change.loaded.state in ENDED and change.loaded.device_id:
            # Its end may have made room for a model that had none.
            self._settled = {name for name in self._settled if self._is_there(name)}
        self._changed.set()

    def _is_there(self, model_id: str) -> bool:
        model = self._catalogue.find(model_id)
        return model is None or self._loads.models.find(model) is not None

    def _is_ready(self, model: Model, hint: Hint) -> bool:
        return any(
            one.model_id == model.id
            and one.device_id != ""
            and (not hint.device_ids or one.device_id in hint.device_ids)
            and not outdated(one, model.sha256)
            for one in self._loaded.list()
        )

    def _obstacle(self, model: Model, left_bytes: int) -> ModelFinding | None:
        """Why a model is not read ahead. None: it will be."""
        try:
            usable(model)
        except DeviceOpsError as error:
            return ModelFinding(reason=ErrorReason(error.reason), message=error.message)
        if (size := file_bytes(model)) > left_bytes:
            refusal = self._loads.no_room(model, size)
            return ModelFinding(reason=ErrorReason.BUDGET_EXCEEDED, message=refusal.message)
        return None
