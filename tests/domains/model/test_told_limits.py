"""The limits and defaults that the contract tells callers: another value would be another contract."""

import pytest

from domains.errors import NotFound
from domains.model import edit, loaded, reconcile, scan, validation, walk
from domains.model.assembly import unknown_components
from domains.model.execution import AS_USUAL, BY_LAYER, Execution, by_layer
from domains.model.families import FAMILIES
from domains.model.loaded_models import LoadedModels
from domains.model.naming import id_violations


def test_models() -> None:
    assert (edit.MAX_DISPLAY_NAME, validation.MAX_FINDINGS, reconcile.MAX_ENTRIES) == (255, 200, 4000)
    assert (scan.MAX_PROBLEMS, walk.MAX_DEPTH, loaded.LONGEST_STAY_S) == (1000, 6, 30 * 24 * 3600.0)


NAME = "µ" * 1000


def test_a_refusal_names_what_a_caller_sent_in_part() -> None:
    (of_id,) = id_violations(NAME, "id")
    (of_component,) = unknown_components(FAMILIES["sd1"], [NAME])
    with pytest.raises(NotFound) as missing:
        LoadedModels().get(NAME)
    told = (of_id.message, of_component.message, missing.value.message, missing.value.facts["loaded_model_id"])
    assert [text.count("µ") for text in told] == [255, 255, 255, 255]


@pytest.mark.parametrize(
    ("room", "held", "budget"),
    [(100, None, 75), (100, 80, 40), (100, 1000, 75), (1, None, 1), (0, None, 1), (-8, 5, 1)],
)
def test_streamed_layers_have_three_quarters_of_the_room_or_half_of_what_was_too_much(
    room: int, held: int | None, budget: int
) -> None:
    assert by_layer(AS_USUAL, room, held) == Execution(offload=BY_LAYER, offload_budget_bytes=budget)
    assert AS_USUAL.offload_budget_bytes == 0
