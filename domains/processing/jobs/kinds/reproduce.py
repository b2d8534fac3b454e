"""Make a picture again, and compare."""

from domains.inference.generation import ResolvedGeneration
from domains.inference.recipes import Cause
from domains.processing.jobs.kinds.generate import GenerateWork


class ReproduceWork(GenerateWork, frozen=True, kw_only=True, tag="reproduce"):
    """Make a picture again, and compare. Implements `DeviceKind`."""

    blob_id: str
    """The file with the first picture."""
    model_id: str = ""
    """The model that the request names. Empty: the one that the file names."""
    tolerance: int
    """Largest difference of a colour value that counts as the same."""
    asked_tolerance: int | None = None
    """The tolerance that the request states. None: it states none."""
    original: ResolvedGeneration
    """How the first picture was made, as far as its file says."""
    causes: tuple[Cause, ...] = ()
    """Differences that are known before the picture is made again."""
    versions: tuple[tuple[str, str], ...] = ()
    """What computed the first picture: (`library` or `server_version`, its version)."""

    @property
    def summary(self) -> str:
        """Names the prompt."""
        return f"again: {self.asked.prompt}"
