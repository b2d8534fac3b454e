"""The detail passes of a run: its decoded pictures, what was found in them, and what is still to be made anew.

Pass by pass, all pictures are looked at first, then each find is made anew: pictures in their order, of each the largest
find first. A later find sees what the earlier ones have changed. All of it lies in host memory.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

import msgspec
import numpy as np

from domains.imaging.masks import Pixels
from domains.inference.details import Detailed, ResolvedDetail
from domains.inference.detections import Find


class DetailsKept(msgspec.Struct, frozen=True, kw_only=True):
    """How far the passes are, as a checkpoint keeps it beside the pictures."""

    passes: tuple[ResolvedDetail, ...]
    place: int
    """The present pass."""
    unseen: tuple[int, ...]
    """Pictures that its detector has not looked at."""
    finds: tuple[tuple[int, Find], ...]
    """What it has found and not made anew, each with its picture."""
    told: dict[int, tuple[Detailed, ...]]
    """By picture: all that was found."""
    steps: int
    """Denoising steps that finds have taken."""


class Details:
    """See the module."""

    def __init__(self, passes: Sequence[ResolvedDetail], pictures: Mapping[int, Future[Pixels]]) -> None:
        """`pictures`: by index, as they are decoded."""
        self._passes = passes
        self.pictures = dict(pictures)
        self.count = len(pictures)
        """Number of pictures, those that are written included."""
        self.place = 0
        """The present pass."""
        self.unseen = deque(sorted(pictures))
        """Pictures that its detector has not looked at."""
        self.finds: deque[tuple[int, Find]] = deque()
        """What it has found and not made anew, each with its picture."""
        self.told: dict[int, tuple[Detailed, ...]] = {}
        self.steps = 0
        """Denoising steps that finds have taken."""

    @property
    def present(self) -> ResolvedDetail:
        """The present pass."""
        return self._passes[self.place]

    def saw(self, found: Sequence[Find]) -> None:
        """Note what was found in the next picture. A pass without strength makes nothing anew."""
        index = self.unseen.popleft()
        told = (Detailed(pass_index=self.place, find=one) for one in found)
        self.told[index] = (*self.told.get(index, ()), *told)
        if self.present.strength:
            self.finds.extend((index, one) for one in found)

    def made(self, picture: Future[Pixels], steps: int) -> None:
        """Note that the next find was made anew, in so many steps. `picture`: with it."""
        index, _ = self.finds.popleft()
        self.pictures[index] = picture
        self.steps += steps

    def enter_next(self) -> None:
        """Begin with the next pass, in which all pictures are looked at again."""
        self.place += 1
        self.unseen.extend(sorted(self.pictures))

    @property
    def finished(self) -> Sequence[int]:
        """Pictures in which no pass has something left to do."""
        if self.place + 1 < len(self._passes):
            return ()
        busy = {*self.unseen, *(index for index, _ in self.finds)}
        return [index for index in sorted(self.pictures) if index not in busy]

    def awaited(self) -> Iterable[Future[Pixels]]:
        """Pictures that another thread has not finished."""
        return (one for one in self.pictures.values() if not one.done())

    def kept(self) -> DetailsKept:
        """How far the passes are."""
        return DetailsKept(
            passes=tuple(self._passes),
            place=self.place,
            unseen=tuple(self.unseen),
            finds=tuple(self.finds),
            told=self.told,
            steps=self.steps,
        )


def details_from(kept: DetailsKept, pictures: Mapping[int, Pixels], made: int) -> Details:
    """Go on from a checkpoint. `made`: number of pictures, from the first, that are not made again."""
    found = Details(kept.passes, {index: _there(one) for index, one in pictures.items() if index >= made})
    found.place, found.steps, found.told = kept.place, kept.steps, dict(kept.told)
    found.unseen = deque(index for index in kept.unseen if index >= made)
    found.finds = deque((index, one) for index, one in kept.finds if index >= made)
    return found


def _there(pixels: Pixels) -> Future[Pixels]:
    found: Future[Pixels] = Future()
    found.set_result(pixels)
    return found


def box_of(find: Find, dilation_px: int, size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a find's box, grown as far as a picture of the size (width, height) reaches."""
    left, top = max(0, find.left_px - dilation_px), max(0, find.top_px - dilation_px)
    right, bottom = find.left_px + find.width_px + dilation_px, find.top_px + find.height_px + dilation_px
    return left, top, min(size_px[0], right), min(size_px[1], bottom)


def levels_of(find: Find, dilation_px: int, pixels: Pixels) -> Pixels:
    """(height, width): the mask of a find in a picture, 255 inside its grown box."""
    height, width = pixels.shape[:2]
    found = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box_of(find, dilation_px, (width, height))
    found[top:bottom, left:right] = 255
    return found
