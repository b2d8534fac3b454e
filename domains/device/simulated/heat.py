"""A first-order lag: a value that follows the load with a delay, as temperature does."""

import math


class Lag:
    """A level in 0..1 that approaches a goal. Times are seconds of one clock."""

    def __init__(self, now_s: float) -> None:
        self._level = self._goal = 0.0
        self._since_s = now_s

    def aim(self, goal: float, now_s: float, settling_s: float) -> None:
        """Set a new goal at this moment."""
        self._level, self._since_s = self.at(now_s, settling_s), now_s
        self._goal = goal

    def at(self, now_s: float, settling_s: float) -> float:
        """The level. `settling_s`: time until 95 % of a change."""
        if settling_s <= 0:
            return self._goal
        # exp(-3) is 5 %.
        left = math.exp(-3 * max(0.0, now_s - self._since_s) / settling_s)
        return self._goal + (self._level - self._goal) * left
