"""What was read for a request of a generation, before its job is stored."""

from collections.abc import Sequence

import msgspec

from domains.inference.components import ResolvedComponent
from domains.inference.input_picture import InputPicture
from domains.inference.latents import ReadLatents
from domains.inference.resolution.controls import ReadControl
from domains.inference.resolution.image_prompts import ReadImagePrompt
from domains.model.model import Model


class RequestFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a request from files and blobs."""

    picture: InputPicture | None = None
    """The picture that the request starts from, decoded. None: it starts from noise."""
    mask: InputPicture | None = None
    """The mask of that picture, decoded. None: there is none."""
    loras: Sequence[Model] = ()
    """The LoRAs that the request names, in its order, with their hashes."""
    words: Sequence[Model] = ()
    """The textual inversions that it names, likewise."""
    controls: Sequence[ReadControl] = ()
    """What was read for its controls, likewise."""
    latents: ReadLatents | None = None
    """The latents that it starts from. None: it starts from something else."""
    refiner: Model | None = None
    """The refiner that it names, with its hash. None: it names none."""
    hires: Model | None = None
    """The model that its second pass names, with its hash. None: it names none."""
    upscaler: Model | None = None
    """The upscaler that its second pass names, with its hash. None: it names none."""
    detectors: Sequence[Model] = ()
    """The detectors of its detail passes, in their order, with their hashes."""
    components: tuple[ResolvedComponent, ...] = ()
    """The components that it takes from elsewhere, in order of their names, with the hashes of their models."""
    image_prompts: Sequence[ReadImagePrompt] = ()
    """What was read for its image prompts, likewise."""
    regions: Sequence[InputPicture | None] = ()
    """The masks of its regions, likewise. None: a rectangle."""
    region_loras: Sequence[Sequence[Model]] = ()
    """The LoRAs of each of its regions, with their hashes."""
    references: Sequence[InputPicture] = ()
    """The pictures that its model sees, decoded, likewise."""

    @property
    def owned(self) -> bool:
        """Whether a job keeps any of them."""
        pictures = self.picture, self.mask, self.latents
        lists = self.controls, self.image_prompts, self.references
        return any(pictures) or any(map(len, lists)) or any(self.regions)


NOTHING_READ = RequestFiles()
