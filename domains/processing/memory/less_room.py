"""A model that has no room on its device as a whole, and how it has room all the same."""

from typing import NamedTuple

from domains.failure import Failure
from domains.model.execution import Execution


class LessRoom(NamedTuple):
    """How the model is loaded instead."""

    execution: Execution
    why: Failure
    """Why it has no room as a whole."""

    def told(self, device: str) -> str:
        """What becomes of it on a device, for people."""
        return f"{self.execution.told_offload(device)}, since {self.why.message}"
