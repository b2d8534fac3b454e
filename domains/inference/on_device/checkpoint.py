"""The kept progress of a generation: latents, solver history, noise generators and the place, as a safetensors file.

The metadata names what the progress belongs to: the weights, the size, the seeds and the walk. Another walk, other weights
or another size cannot continue from it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.imaging.masks import Pixels
from domains.inference.components import ResolvedComponent
from domains.inference.controls import ResolvedControl
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_prompts import ResolvedImagePrompt
from domains.inference.init_image import ResolvedInitImage
from domains.inference.kept_file import KeptFile
from domains.inference.latents import ResolvedLatents
from domains.inference.loras import ResolvedLora
from domains.inference.masks import ResolvedMask, ResolvedOutpaint
from domains.inference.on_device.details import DetailsKept
from domains.inference.on_device.kept_bytes import kept_bytes
from domains.inference.on_device.to_device import to_device
from domains.inference.on_device.trajectory import Trajectory
from domains.inference.outcome import CheckpointReady
from domains.inference.own_walk import AS_THE_MODEL, OwnWalk
from domains.inference.references import ResolvedReference
from domains.inference.regions import ResolvedRegion
from domains.inference.seed_variation import ResolvedSeedVariation
from domains.inference.step_range import ALL_STEPS, StepRange
from domains.inference.textual_inversions import ResolvedTextualInversion

_VERSION = 1
_ENTRY = "deviceops.checkpoint"
_DETAILS_ENTRY, _DETAILS, _PICTURE = "deviceops.details", -1, "picture."
"""Of a checkpoint after the pictures were decoded: its metadata, its place among the passes, and names of its tensors."""
BEFORE = -1
"""Place of a pass that has not begun."""
_HANDED, _RETURNED = "latents", "returned"
"""Names of tensors beside those of a trajectory: latents of the pass before, and latents to hand out."""
_BRANCHED = ("loras", "textual_inversions", "controls", "image_prompts", "regions", "references")
"""Entries in which a branch may differ from the job that it continues."""


class Walked(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint belongs to, and how far it is."""

    version: int
    model_sha256: str
    width_px: int
    height_px: int
    seeds: tuple[int, ...]
    sampler: str
    sigma_schedule: str
    steps: int
    eta: float | None
    own: OwnWalk = AS_THE_MODEL
    part: StepRange = ALL_STEPS
    init_image: ResolvedInitImage | None = None
    mask: ResolvedMask | None = None
    outpaint: ResolvedOutpaint | None = None
    seamless_x: bool = False
    seamless_y: bool = False
    loras: tuple[ResolvedLora, ...] = ()
    textual_inversions: tuple[ResolvedTextualInversion, ...] = ()
    seed_variation: ResolvedSeedVariation | None = None
    controls: tuple[ResolvedControl, ...] = ()
    components: tuple[ResolvedComponent, ...] = ()
    init_latents: ResolvedLatents | None = None
    pass_index: int = 0
    """Place of the pass among those of its generation, whose walk this is."""
    image_prompts: tuple[ResolvedImagePrompt, ...] = ()
    regions: tuple[ResolvedRegion, ...] = ()
    references: tuple[ResolvedReference, ...] = ()
    place: int
    """Number of lines of the walk that are done. `BEFORE`: not begun, and the latents are those of the pass before."""


def packed(
    trajectory: Trajectory, resolved: ResolvedGeneration, pass_index: int = 0, returned: Tensor | None = None
) -> bytes:
    """The file of a trajectory. `resolved`: of its pass. `returned`: latents to hand out. Waits for the device."""
    return _saved(trajectory.kept() | _named(returned), walked_of(resolved, trajectory.place, pass_index))


def packed_before(
    handed: "Handed", resolved: ResolvedGeneration, pass_index: int, returned: Tensor | None = None
) -> bytes:
    """The file of a pass that has not begun. Waits for the device."""
    noise = {f"generator.{picture}": state for picture, state in enumerate(handed.noise)}
    return _saved({_HANDED: handed.latents} | noise | _named(returned), walked_of(resolved, BEFORE, pass_index))


def packed_details(
    resolved: ResolvedGeneration,
    kept: DetailsKept,
    pictures: Mapping[int, Pixels],
    returned: Tensor | None = None,
) -> bytes:
    """The file of detail passes: the pictures (by index) as they are, and how far the passes are."""
    tensors = {f"{_PICTURE}{index}": torch.from_numpy(pixels) for index, pixels in pictures.items()}
    walked = walked_of(resolved, kept.steps, _DETAILS)
    return _saved(tensors | _named(returned), walked, {_DETAILS_ENTRY: msgspec.json.encode(kept).decode()})


def _named(returned: Tensor | None) -> dict[str, Tensor]:
    return {} if returned is None else {_RETURNED: returned}


class Handed(NamedTuple):
    """What a pass hands to the next one."""

    latents: Tensor
    """(pictures, channels, h/8, w/8)."""
    noise: Sequence[Tensor]
    """The states of the noise generators."""


class Unpacked(NamedTuple):
    """What a file has beside the tensors of a trajectory."""

    handed: Handed | None
    """What the pass before has made, if this one had not begun: the trajectory is unchanged then."""
    returned: Tensor | None
    """Latents to hand out, on the CPU."""


def _saved(tensors: Mapping[str, Tensor], walked: Walked, more: Mapping[str, str] | None = None) -> bytes:
    # Copies, since two of the tensors may share their bytes, which a file cannot.
    copies = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return save(copies, {_ENTRY: msgspec.json.encode(walked).decode(), **(more or {})})


def walked_of(resolved: ResolvedGeneration, place: int, pass_index: int = 0) -> Walked:
    """What a checkpoint of this pass says."""
    names = (name for name in Walked.__struct_fields__ if name not in ("version", "place", "pass_index"))
    told = {name: getattr(resolved, name) for name in names}
    return Walked(version=_VERSION, place=place, pass_index=pass_index, **told)


def pass_of(kept: KeptFile | None, passes: int) -> int:
    """The place of the pass that a file continues, among so many. 0 for a file that cannot be read, and without one."""
    if kept is None:
        return 0
    try:
        index = _read(Path(kept.path).read_bytes())[0].pass_index
    except (OSError, DataLoss):
        return 0
    return index if 0 <= index < passes else 0


def unpack(
    kept: KeptFile | CheckpointReady, resolved: ResolvedGeneration, into: Trajectory, pass_index: int = 0
) -> Unpacked:
    """Continue a trajectory from a file, or from what would be written to one.

    Raises as `kept_bytes` (CHECKPOINT_CORRUPT), or MODEL_INCOMPATIBLE if the file belongs to another walk, size or model;
    the trajectory is unchanged then too.
    """
    walked, tensors = _read(_data(kept))
    expected = walked_of(resolved, walked.place, pass_index)
    if isinstance(kept, KeptFile) and kept.branched:
        expected = msgspec.structs.replace(expected, **{name: getattr(walked, name) for name in _BRANCHED})
    if walked != expected:
        wrong = [name for name in Walked.__struct_fields__ if getattr(walked, name) != getattr(expected, name)]
        message = f"the checkpoint belongs to another generation: {', '.join(wrong)} differ"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, fields=", ".join(wrong))
    returned = tensors.get(_RETURNED)
    if walked.place == BEFORE:
        noise = [tensors[f"generator.{picture}"] for picture in range(len(into.latents))]
        return Unpacked(Handed(to_device(tensors[_HANDED], into.latents.device), noise), returned)
    into.restore(tensors, walked.place)
    return Unpacked(None, returned)


class UnpackedDetails(NamedTuple):
    """What the file of detail passes has."""

    kept: DetailsKept
    pictures: Mapping[int, Pixels]
    """By index."""
    returned: Tensor | None
    """Latents to hand out, on the CPU."""


def unpack_details(kept: KeptFile, resolved: ResolvedGeneration, made: int) -> UnpackedDetails | None:
    """Read the file of detail passes. None: it was written before the pictures were decoded. `made`: number of pictures,
    from the first, that are not made again. Raises as `unpack`."""
    data = _data(kept)
    walked, tensors = _read(data)
    if walked.pass_index != _DETAILS:
        return None
    try:
        details = msgspec.json.decode(_header_of(data)[_DETAILS_ENTRY], type=DetailsKept)
    except (msgspec.DecodeError, KeyError) as error:
        raise _corrupt(f"the checkpoint cannot be read: {error}") from None
    expected = walked_of(resolved, walked.place, _DETAILS)
    if kept.branched:
        expected = msgspec.structs.replace(expected, **{name: getattr(walked, name) for name in _BRANCHED})
    if walked != expected or details.passes != resolved.detail_passes:
        message = "the checkpoint belongs to another generation, or to other detail passes"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE)
    pictures = {
        int(name.removeprefix(_PICTURE)): one.numpy() for name, one in tensors.items() if name.startswith(_PICTURE)
    }
    width, height = resolved.result_px
    needed = range(made, len(resolved.seeds))
    if any(index not in pictures or pictures[index].shape != (height, width, 3) for index in needed):
        raise _corrupt("the checkpoint lacks a picture, or has one of another size")
    return UnpackedDetails(details, pictures, tensors.get(_RETURNED))


def _data(kept: KeptFile | CheckpointReady) -> bytes:
    if isinstance(kept, CheckpointReady):
        return kept.data
    return kept_bytes(kept, lambda why: _corrupt(f"the file of the checkpoint {why}"))


def _read(data: bytes) -> tuple[Walked, Mapping[str, Tensor]]:
    try:
        walked = msgspec.json.decode(_header_of(data)[_ENTRY], type=Walked)
        return walked, load(data)
    except (SafetensorError, msgspec.DecodeError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(f"the checkpoint cannot be read: {error}") from None


def _header_of(data: bytes) -> Mapping[str, str]:
    """The metadata of a file. Raises ValueError, KeyError or TypeError."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _corrupt(message: str) -> DataLoss:
    return DataLoss(message, ErrorReason.CHECKPOINT_CORRUPT)
