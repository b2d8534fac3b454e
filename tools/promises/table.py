"""The table of promises: tests/promises.toml."""

from enum import StrEnum
from typing import Literal

import msgspec

from tools.promises.named_tests import ROOT

TABLE = ROOT / "tests" / "promises.toml"


class State(StrEnum):
    """How far a promise is proven."""

    PROVEN = "proven"
    PARTLY = "in part"
    UNTESTED = "untested"
    REVIEWED = "by review"
    NOT_BUILT = "not built"


STATE_OF = {
    "not built yet": State.NOT_BUILT,
    "built, no test decides it": State.UNTESTED,
    "decided by review": State.REVIEWED,
}


class Promise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the table. The head of the table's file says what each field means."""

    promise: str
    """One line: what a client can rely on."""
    tests: tuple[str, ...] = ()
    """`file::name`, relative to the root."""
    benches: tuple[str, ...] = ()
    """Modules of `bench`."""
    missing: str = ""
    """What no test decides. Empty: nothing."""
    status: Literal["", "not built yet", "built, no test decides it", "decided by review"] = ""
    """Why there are no tests. Empty: there are."""
    gpu_only: str = ""
    """Why every test needs a GPU."""
    note: str = ""
    """A limit of the proof."""

    @property
    def state(self) -> State:
        """Follows from the fields: a row cannot claim more than it names."""
        return STATE_OF[self.status] if self.status else State.PARTLY if self.missing else State.PROVEN


def promises() -> dict[str, Promise]:
    """Reads the table. Raises msgspec.DecodeError for an unknown field, a wrong type or a second row of one id."""
    return msgspec.toml.decode(TABLE.read_bytes(), type=dict[str, Promise])
