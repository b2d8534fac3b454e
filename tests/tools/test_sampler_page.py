"""The page of rendered comparisons has every sampler with each of its schedules."""

from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES
from tools.sampler_page import page


class Named:
    """Files that hold the names of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def made(self, sampler: str, schedule: str) -> bytes:
        self.asked.append((sampler, schedule))
        return b"a picture"


def test_each_pair_that_is_served_is_rendered_once_and_the_others_are_left_empty() -> None:
    pictures = Named()
    text = "\n".join(page(pictures, "<owl>"))
    assert pictures.asked == [(one.id, name) for one in SAMPLERS.values() for name in one.sigma_schedules]
    assert text.count("<img") == len(pictures.asked)
    assert text.count("<td></td>") == len(SAMPLERS) * len(SIGMA_SCHEDULES) - len(pictures.asked)
    assert "&lt;owl&gt;" in text
