"""Names and labels that callers give to models, and forgetting them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import Aborted, FailedPrecondition, InvalidRequest, NotFound
from domains.model.edit import MAX_DISPLAY_NAME, ModelChange, ModelEdits
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from tests.domains.model.folders import write_json, write_model
from tests.domains.model.known import DEMO, Known, known_in, loaded_as


def etag_of(model: Model) -> str:
    return f"{model.display_name}|{model.labels}"


class Edited:
    """A model `one` that can be changed."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.loaded = LoadedModels()
        self.jobs: list[str] = []
        self.edits = ModelEdits(known.catalogue, self.loaded, lambda model_id: self.jobs, etag_of)
        write_model(known.root / "one")
        known.scan()

    def update(self, **change: object) -> Model:
        return self.edits.update(ModelChange(model_id="one", **change))  # pyright: ignore[reportArgumentType]

    @property
    def model(self) -> Model:
        return self.known.model("one")


@pytest.fixture
def edited(tmp_path: Path) -> Iterator[Edited]:
    with known_in(tmp_path) as known:
        yield Edited(known)


def test_labels_are_added_replaced_and_removed(edited: Edited) -> None:
    first = edited.update(set_labels=(("a", "1"), ("b", "2")))
    assert first.labels == (("a", "1"), ("b", "2"))
    assert first.update_time_s > 0
    changed = edited.update(set_labels=(("a", "3"),), remove_label_keys=("b", "absent"))
    assert changed.labels == edited.model.labels == (("a", "3"),)
    assert changed.update_time_s > first.update_time_s


def test_a_change_of_nothing_is_none(edited: Edited) -> None:
    before = edited.update(set_labels=(("a", "1"),), display_name="Mine")
    assert edited.update(set_labels=(("a", "1"),)) == before == edited.model


def test_a_name_is_kept_by_other_changes_and_by_scans_until_it_is_taken_away(edited: Edited) -> None:
    plain = edited.model.display_name
    assert edited.update(display_name="Mine").display_name == "Mine"
    assert edited.update(set_labels=(("a", "1"),)).display_name == "Mine"
    write_json(edited.known.root / "one" / "scheduler" / "scheduler_config.json", {"prediction_type": "v_prediction"})
    edited.known.scan()
    assert edited.model.display_name == "Mine"
    assert edited.update(display_name="").display_name == plain == edited.model.display_name


def test_a_name_and_labels_outlive_the_process(edited: Edited) -> None:
    edited.update(display_name="Mine", set_labels=(("a", "1"),))
    with known_in(edited.known.root.parent) as again:
        assert (again.model("one").display_name, again.model("one").labels) == ("Mine", (("a", "1"),))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"display_name": "x" * (MAX_DISPLAY_NAME + 1)}, "display_name"),
        ({"set_labels": (("a", "1"), ("a", "2"))}, "set_labels"),
        ({"set_labels": (("", "1"),)}, "set_labels"),
        ({"set_labels": tuple((str(each), "") for each in range(33))}, "set_labels"),
    ],
)
def test_a_change_beyond_the_limits_is_refused_and_changes_nothing(
    edited: Edited, change: dict[str, object], field: str
) -> None:
    before = edited.model
    with pytest.raises(InvalidRequest) as caught:
        edited.update(remove_label_keys=("z",), **change)
    assert [each.field for each in caught.value.violations] == [field]
    assert edited.model == before


def test_a_name_and_labels_may_be_as_long_as_the_limits(edited: Edited) -> None:
    name, labels = "x" * MAX_DISPLAY_NAME, tuple((str(each), "v" * 255) for each in range(32))
    changed = edited.update(display_name=name, set_labels=labels)
    assert (changed.display_name, changed.labels) == (name, labels)


def test_what_changed_since_it_was_read_is_neither_changed_nor_forgotten(edited: Edited) -> None:
    etag = etag_of(edited.model)
    edited.update(set_labels=(("a", "1"),), etag=etag)
    with pytest.raises(Aborted, match="read it again"):
        edited.update(set_labels=(("b", "1"),), etag=etag)
    with pytest.raises(Aborted):
        edited.edits.forget("one", etag)
    assert edited.model.labels == (("a", "1"),)
    edited.edits.forget("one", etag_of(edited.model))


def test_a_forgotten_model_is_found_again_without_its_name_and_labels(edited: Edited) -> None:
    edited.update(display_name="Mine", set_labels=(("a", "1"),))
    edited.edits.forget("one", "")
    with pytest.raises(NotFound):
        edited.known.model("one")
    assert edited.known.model(DEMO)
    assert (edited.known.root / "one" / "model_index.json").exists()
    with known_in(edited.known.root.parent) as again:
        assert again.catalogue.find("one") is None
        again.scan()
        assert (again.model("one").display_name, again.model("one").labels) == ("one", ())


def test_a_model_in_use_is_not_forgotten(edited: Edited) -> None:
    write_model(edited.known.root / "two", value=2.0)
    edited.known.scan()
    edited.loaded.put(loaded_as(edited.known.model("two")))
    edited.loaded.put(loaded_as(edited.model))
    edited.jobs.append("job-1")
    with pytest.raises(FailedPrecondition, match="loaded as one@gpu; unload it"):
        edited.edits.forget("one", "")
    edited.loaded.remove("one@gpu")
    with pytest.raises(FailedPrecondition, match="job-1"):
        edited.edits.forget("one", "")
    edited.jobs.clear()
    with pytest.raises(FailedPrecondition, match="part of the server"):
        edited.edits.forget(DEMO, "")
    edited.edits.forget("one", "")
    assert edited.known.catalogue.find("one") is None
    assert edited.known.catalogue.find("two")


def test_a_refusal_to_forget_names_the_first_eight_that_need_the_model(edited: Edited) -> None:
    edited.jobs = [f"job-{at}" for at in range(9)]
    with pytest.raises(FailedPrecondition) as refused:
        edited.edits.forget("one", "")
    assert refused.value.message == (
        f"model one cannot be forgotten: jobs need it: {', '.join(edited.jobs[:8])}; cancel them, or wait"
    )
    for at in range(9):
        edited.loaded.put(loaded_as(edited.model, f"gpu-{at}"))
    with pytest.raises(FailedPrecondition) as refused:
        edited.edits.forget("one", "")
    names = ", ".join(f"one@gpu-{at}" for at in range(8))
    assert refused.value.message == f"model one cannot be forgotten: it is loaded as {names}; unload it first"
    with pytest.raises(FailedPrecondition, match="it is part of the server"):
        edited.edits.forget("emoji-sd", "")
