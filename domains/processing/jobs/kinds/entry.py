"""Fields of an entry in the table of kinds. An entry is the work itself: a value that is stored with its job."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.inference.fallback import NOTHING, Fallback
from domains.inference.generation import Previews
from domains.inference.kept_file import ControlFiles, ImagePromptFiles, KeptFile
from domains.model.benchmark import ModelBenchmarkReport
from domains.model.execution import Execution
from domains.model.loaded import LoadedModel, Stay
from domains.model.model import Model
from domains.processing.jobs.event import GeneratedImage, JobResult
from domains.processing.jobs.kinds.assets import Asset
from domains.processing.workers.worker import Order
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class Kind(Protocol):
    """Fields of every kind."""

    domain: ClassVar[Domain]
    """The domain of the work."""
    alone: ClassVar[bool]
    """Whether it needs its device to itself."""
    has_prompt: ClassVar[bool]
    """Whether its summary may hold words of a prompt."""

    @property
    def summary(self) -> str:
        """The work in one line, for people."""
        ...

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Devices that the work itself names, by id or alias. Empty: the job's options decide."""
        ...

    @property
    def subject_device_id(self) -> str:
        """Device that the work of the front process is about. Empty: none."""
        ...

    @property
    def assets(self) -> tuple[Asset, ...]:
        """Models that the work needs on its device, the base first."""
        ...

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Models that the work reads, on a device or elsewhere."""
        ...


class PlainWork(msgspec.Struct, frozen=True, kw_only=True):
    """What most kinds of work have in common. A kind overrides what is different."""

    alone: ClassVar[bool] = False
    has_prompt: ClassVar[bool] = False

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Empty: the job's options decide."""
        return ()

    @property
    def subject_device_id(self) -> str:
        """Empty: the work is about no device."""
        return ""

    @property
    def assets(self) -> tuple[Asset, ...]:
        """Empty: the work needs no model on its device."""
        return ()

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The models that the work needs on its device."""
        return tuple(asset.model_id for asset in self.assets)

    @property
    def stay(self) -> Stay:
        """The keep-alive that the server's settings give."""
        return Stay()


class Supplies(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of an order besides the work."""

    model: Callable[[str], Model]
    """A model by id, as a worker needs it. Raises MODEL_NOT_FOUND."""
    adapter: Callable[[str], Model]
    """An adapter by id, with its file's hash. Raises MODEL_NOT_FOUND, COMPONENT_MISSING, MODEL_CORRUPT."""
    whole: Callable[[str], Model]
    """A network that guides a model, by id, with the hash of its weights. Raises as `adapter`."""
    previews: Callable[[Previews], Previews]
    """The previews to make for a job that itself asks for these."""
    made: int = 0
    """Number of pictures that earlier attempts stored."""
    kept: KeptFile | None = None
    """The job's checkpoint. None: the work begins at the start."""
    picture: KeptFile | None = None
    """Pixels of the picture to start from. None: the work starts from noise."""
    mask: KeptFile | None = None
    """Which of them to make anew, one byte each. None: all."""
    latents: KeptFile | None = None
    """The latents to start from. None: the work starts from something else."""
    controls: tuple[ControlFiles, ...] = ()
    """The pixels of the control maps, in the order of the generation."""
    image_prompts: tuple[ImagePromptFiles, ...] = ()
    """The pixels of the pictures of its image prompts, likewise."""
    regions: tuple[KeptFile | None, ...] = ()
    """The pixels of the masks of its regions, likewise. None: a rectangle."""
    references: tuple[KeptFile, ...] = ()
    """The pixels of the pictures that the model sees, likewise."""
    fallback: Fallback = NOTHING
    """What the worker may give up when the device is out of memory."""
    narrower: Execution | None = None
    """How a model that is not loaded yet has room, or comes back. None: in the way that the work asks for."""


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of the reports so far, of this attempt and of earlier ones."""

    images: tuple[GeneratedImage, ...] = ()
    """Stored pictures, ordered by index."""
    loaded: LoadedModel | None = None
    """The base model, once it is on the device."""
    reused: bool = False
    """Whether that was loaded before the work asked for it."""
    benchmark: BenchmarkReport | None = None
    model_benchmark: ModelBenchmarkReport | None = None
    libraries: tuple[str, ...] = ()
    """Versions of the computing libraries: `torch 2.14.1`."""


class DeviceKind(Kind, Protocol):
    """A kind that a device worker carries out."""

    @property
    def stay(self) -> Stay:
        """How long the loaded model shall stay."""
        ...

    def order(self, order_id: str, supplies: Supplies) -> Order:
        """The order for the worker."""
        ...

    def result(self, reported: Reported) -> JobResult:
        """The result of the job, after the worker's last report."""
        ...


class FrontKind(Kind, Protocol):
    """A kind that the front process carries out by itself."""

    at_once: ClassVar[int]
    """Maximum number of jobs of this kind that run at once."""

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Carry out the work."""
        ...
