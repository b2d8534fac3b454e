"""Check a model's files."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.model.validation import Validation
from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class ValidateWork(PlainWork, frozen=True, kw_only=True, tag="validate_model"):
    """Check a model's files. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.MODEL
    at_once: ClassVar[int] = 2

    asked: Validation

    @property
    def summary(self) -> str:
        """Names the model and the depth."""
        return f"validate {self.asked.model_id}: {self.asked.depth.name.lower()}"

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The models that it looks at."""
        return tuple(filter(None, (self.asked.model_id, self.asked.base_model_id)))

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the validation."""
        return runners.validate(self, task)
