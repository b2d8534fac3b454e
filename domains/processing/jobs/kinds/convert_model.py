"""Write a model in another precision or layout."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.model.conversion import Conversion
from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class ConvertWork(PlainWork, frozen=True, kw_only=True, tag="convert_model"):
    """Write a model in another precision or layout. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.MODEL
    at_once: ClassVar[int] = 1

    asked: Conversion

    @property
    def summary(self) -> str:
        """Names the model and the changes."""
        changes = (self.asked.precision, self.asked.layout.value if self.asked.layout else "")
        return f"convert {self.asked.model_id}: {', '.join(filter(None, changes)) or 'a copy'}"

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The model that it reads."""
        return (self.asked.model_id,)

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the conversion."""
        return runners.convert(self, task)
