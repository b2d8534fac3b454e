"""What is loaded where."""

import msgspec
import pytest

from domains.errors import ErrorReason, NotFound
from domains.model.loaded import LoadedModel, outdated
from domains.model.loaded_models import LoadedModels


def one(model: str, device: str) -> LoadedModel:
    return LoadedModel(
        id=f"{model}@{device}",
        model_id=model,
        device_id=device,
        components=(),
        load_time_s=1.0,
        last_use_time_s=2.0,
    )


def test_a_lost_device_takes_all_that_it_held() -> None:
    loaded = LoadedModels()
    for entry in (one("b", "gpu"), one("a", "cpu"), one("a", "gpu")):
        loaded.put(entry)
    assert [entry.id for entry in loaded.list()] == ["a@cpu", "a@gpu", "b@gpu"]
    loaded.remove_device("gpu")
    assert [entry.id for entry in loaded.list()] == ["a@cpu"]


def test_a_device_holds_a_model_once_and_removal_may_be_repeated() -> None:
    loaded = LoadedModels()
    loaded.put(one("a", "cpu"))
    loaded.put(one("a", "cpu"))
    assert loaded.get("a@cpu") == one("a", "cpu")
    loaded.remove("a@cpu")
    loaded.remove("a@cpu")
    assert loaded.list() == []


def test_a_miss_names_what_is_loaded() -> None:
    loaded = LoadedModels()
    loaded.put(one("a", "cpu"))
    with pytest.raises(NotFound, match="loaded: a@cpu") as caught:
        loaded.get("b@cpu" * 1000)
    assert caught.value.reason is ErrorReason.LOADED_MODEL_NOT_FOUND
    assert len(caught.value.message) < 300


def test_a_model_is_outdated_once_its_files_have_other_weights() -> None:
    known = msgspec.structs.replace(one("a", "cpu"), model_sha256="old")
    assert outdated(known, "new")
    assert not outdated(known, "old")
    assert not outdated(known, ""), "no scan could read what its files hold now"
    assert not outdated(one("a", "cpu"), "new"), "its worker did not tell what it loaded"
