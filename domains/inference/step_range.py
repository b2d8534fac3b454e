"""Which of a walk's steps are computed, and whether noise is added before them."""

import msgspec


class StepRange(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the steps, as requested. All of it can be absent."""

    first_step: int | None = None
    """First of the steps to compute, from 0. Absent: 0, or by the strength of what the walk starts from."""
    last_step: int | None = None
    """The step to stop before. Absent: none."""
    add_noise: bool | None = None
    """Whether noise of the first step's level is added to what the walk starts from. Absent: yes."""

    def visited(self, steps: int, computed: int) -> range:
        """The steps (from 0, of `steps`) to compute. `computed`: how many of the last ones the strength selects."""
        first = steps - computed if self.first_step is None else self.first_step
        return range(first, steps if self.last_step is None else self.last_step)


ALL_STEPS = StepRange()
"""No part is requested: the strength decides."""


def own_part(found: range, begin: int, count: int) -> range:
    """Steps of a walk, from 0, as a part of it counts them, which has `count` steps from step `begin` on."""
    start, stop = (min(max(edge - begin, 0), count) for edge in (found.start, found.stop))
    return range(start, max(start, stop))
