"""A family whose denoiser's blocks compute with compiled code, where nothing changes what the blocks compute."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from torch import Tensor

from domains.errors import ErrorReason
from domains.inference.on_device.compiling.denoiser_code import DenoiserCode, Why
from domains.inference.on_device.families.around import Around, Part, Result
from domains.inference.on_device.families.family import Family, KeepOn, StepRows, regardless
from domains.inference.on_device.rows import RowConditions
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel
from domains.model.ways import Ways


def compiling(loaded: OnDeviceModel, family: Family, ways: Ways) -> Family:
    """The family, with compiled code if `ways` say so."""
    return Compiling(loaded, family) if ways.compile else family


def taken_reasons(family: Family) -> Collection[Why]:
    """Why steps of a family that compiles have computed as usual since the last call."""
    reasons: set[Why] | None = getattr(family, "uncompiled", None)
    if not reasons:
        return ()
    taken = sorted(reasons)
    reasons.clear()
    return taken


class Compiling(Around):
    """See `Family`. Everything but `denoise` is the family's own."""

    def __init__(self, loaded: OnDeviceModel, family: Family) -> None:
        self._family = family
        self._code = DenoiserCode(loaded.modules[FAMILIES[loaded.family].denoiser.id])
        self.uncompiled = self._code.reasons
        """See `taken_reasons`."""

    def __getattr__(self, name: str) -> Any:
        """What else a family has."""
        return getattr(self._family, name)

    def _around(self, part: Part, call: Callable[[Family], Result], keep_on: KeepOn = regardless) -> Result:
        del part, keep_on
        return call(self._family)

    def denoise(self, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        """See `Family`. Raises CodeMissing if a shape is new."""
        why = next(filter(None, map(_why_usual, group)), "")
        if why:
            self.uncompiled.add((ErrorReason.UNSUPPORTED_COMBINATION, why))
            return self._family.denoise(group, keep_on)
        with self._code.computing():
            return self._family.denoise(group, keep_on)


def _why_usual(job: StepRows) -> str:
    """Why a job's step is computed without code. Empty: it is not."""
    if job.exact:
        return "an exact picture is computed as on a model that is not compiled"
    if job.adapters.layers or job.adapters.regions:
        return "LoRAs of this job, or of one that shares its steps, change what the layers compute"
    if job.image_prompts:
        return "image prompts of this job, or of one that shares its steps, change what the layers compute"
    if cast(RowConditions, job.conditions).regions is not None:
        return "prompts of regions of this job, or of one that shares its steps, change what the layers compute"
    return ""
