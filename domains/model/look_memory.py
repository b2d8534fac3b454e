"""Remembers how models read at the last scan, so that a rescan reads only files that have changed."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

from domains.model.fingerprint import CLOCK_GRAIN_S
from domains.model.model import Model, ModelLayout, ModelState
from domains.model.roots import Roots
from domains.model.roots_look import FolderLook, look_of


class LookMemory:
    """Models by place, with the look at their files when they were read. Lives as long as the process: a newer version
    may read the same files otherwise. One thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[FolderLook, Model]] = {}

    def read(self, path: Path, model_id: str, roots: Roots, anew: Callable[[], Model]) -> Model:
        """The model at a real path: as it was read before, if none of its files has changed, else read `anew`."""
        look = look_of(path, roots)
        before = self._known.get(str(path))
        if before and before[0] == look and before[1].id == model_id:
            return before[1]
        model = anew()
        settled = time.time() - look.changed_s > CLOCK_GRAIN_S
        if settled and _lasting(model):
            self._known[str(path)] = look, model
        else:
            self._known.pop(str(path), None)
        return model

    def forget_all_but(self, folders: Collection[str]) -> None:
        """Keep only the models at these places."""
        self._known = {path: one for path, one in self._known.items() if path in folders}


def _lasting(model: Model) -> bool:
    """Whether the result stays true until a file changes; after a disk error, the next read may succeed."""
    whole = model.state is ModelState.AVAILABLE
    return whole or (model.layout is ModelLayout.FILE and model.state is not ModelState.CORRUPT)
