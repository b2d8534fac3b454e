"""A catalogue over one root, for tests that change, inspect or validate the models that it knows."""

import asyncio
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.model.roots import Roots
from domains.storage import open_database

DEMO = "emoji-sd"


class Known(msgspec.Struct, frozen=True):
    """The catalogue, its root, and the folder of its database."""

    catalogue: Catalogue
    root: Path
    state: Path

    def scan(self) -> None:
        """Scan the root."""
        asyncio.run(self.catalogue.rescan(lambda told: None, lambda: False))

    def model(self, model_id: str) -> Model:
        """The model as it is known."""
        return self.catalogue.get(model_id)


@contextmanager
def known_in(folder: Path) -> Generator[Known]:
    """A fresh catalogue with a root in a folder; made again on what is there."""
    root, state = folder / "root", folder / "state"
    root.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    with closing(open_database(state)) as database:
        yield Known(Catalogue(database, Roots([root]), DEMO), root, state)


def loaded_as(model: Model, device: str = "gpu", **facts: object) -> LoadedModel:
    """The model as a worker reports that it is loaded."""
    plain = LoadedModel(
        id=f"{model.id}@{device}",
        model_id=model.id,
        device_id=device,
        components=(),
        load_time_s=1.0,
        last_use_time_s=2.0,
        model_sha256=model.sha256,
    )
    return msgspec.structs.replace(plain, **facts)
