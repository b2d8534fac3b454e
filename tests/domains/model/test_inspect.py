"""What a path or a known model is, said without registering it."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import ErrorReason, NotFound, PermissionDenied
from domains.model.inspect import Inspection
from domains.model.model import ModelLayout, ModelState
from domains.reasons import Severity
from tests.domains.model.folders import age, write_json, write_model, write_weights
from tests.domains.model.headers import write_published
from tests.domains.model.known import DEMO, Known, known_in


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    with known_in(tmp_path) as each:
        yield each


def at(known: Known, path: Path | str) -> Inspection:
    return asyncio.run(known.catalogue.inspector.path(str(path)))


def test_a_folder_that_no_scan_saw_is_told_and_stays_unregistered(known: Known) -> None:
    found = at(known, write_model(known.root / "My Model"))
    assert (found.model.state, found.model.id, found.model.display_name) == (
        ModelState.AVAILABLE,
        "my-model",
        "My Model",
    )
    assert not found.registered
    assert not [each for each in found.findings if each.severity is Severity.ERROR]
    assert known.catalogue.find("my-model") is None


def test_the_id_of_an_unknown_model_is_free(known: Known) -> None:
    assert at(known, write_model(known.root / DEMO)).model.id == f"{DEMO}-2"


def test_a_registered_model_is_told_by_its_path_as_by_its_id_with_its_hash(known: Known) -> None:
    folder = write_model(known.root / "one")
    age(folder)
    known.scan()
    by_path = at(known, folder)
    assert by_path.registered
    assert by_path.model.id == "one"
    assert by_path.model.sha256 == known.model("one").sha256 != ""
    assert asyncio.run(known.catalogue.inspector.model(known.model("one"))) == by_path


def test_the_embedded_model_is_inspected_outside_of_all_roots(known: Known) -> None:
    found = asyncio.run(known.catalogue.inspector.model(known.model(DEMO)))
    assert (found.model.embedded, found.model.state, found.registered) == (True, ModelState.AVAILABLE, True)


def test_a_known_model_whose_files_are_gone_says_so(known: Known) -> None:
    folder = write_model(known.root / "one")
    known.scan()
    shutil.rmtree(folder)
    found = asyncio.run(known.catalogue.inspector.model(known.model("one")))
    assert (found.model.id, found.model.state) == ("one", ModelState.MISSING)
    assert found.findings[0].reason is ErrorReason.COMPONENT_MISSING
    assert found.findings[0].severity is Severity.ERROR
    assert "not there any more" in found.findings[0].message


def test_a_path_outside_or_without_anything_is_refused(known: Known) -> None:
    with pytest.raises(PermissionDenied) as refused:
        at(known, known.state)
    assert refused.value.reason is ErrorReason.PATH_OUTSIDE_ROOTS
    with pytest.raises(NotFound) as absent:
        at(known, known.root / ("x" * 200))
    assert absent.value.reason is ErrorReason.PATH_NOT_FOUND


def test_a_link_that_leads_out_of_the_roots_is_refused(known: Known) -> None:
    write_model(known.state / "secret")
    (known.root / "link").symlink_to(known.state / "secret")
    with pytest.raises(PermissionDenied):
        at(known, known.root / "link")


def test_a_file_of_weights_is_named_after_its_stem(known: Known) -> None:
    path = write_published(known.root / "Great Model.safetensors", "sd1_single")
    found = at(known, path)
    assert (found.model.layout, found.model.family, found.model.display_name) == (
        ModelLayout.FILE,
        "sd1",
        "Great Model",
    )
    assert not found.registered


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.ckpt", "pickle"), ("a.gguf", "no other format"), ("a.pt", "pickle"), ("a.txt", "no other format")],
)
def test_a_file_of_another_format_is_refused_with_what_is_read(known: Known, name: str, told: str) -> None:
    (known.root / name).write_bytes(b"x" * 32)
    found = at(known, known.root / name)
    assert found.findings[0].reason is ErrorReason.MODEL_INCOMPATIBLE
    assert told in found.findings[0].message
    assert found.findings[0].severity is Severity.ERROR


def test_a_folder_of_one_component_is_told_as_one(known: Known) -> None:
    folder = write_model(known.root / "one") / "vae"
    assert at(known, folder).model.layout is ModelLayout.COMPONENT


def test_a_folder_of_no_model_names_the_files_to_ask_for(known: Known) -> None:
    folder = known.root / "several"
    for number in range(10):
        write_weights(folder / f"m{number}.safetensors", ("a",))
    told = at(known, folder).findings[0].message
    assert "one by one: m0.safetensors, m1.safetensors" in told
    assert "m7.safetensors" in told
    assert "m8.safetensors" not in told
    (known.root / "empty").mkdir()
    empty = at(known, known.root / "empty")
    assert "neither model_index.json nor weights" in empty.findings[0].message
    assert empty.findings[0].severity is Severity.ERROR


def test_what_headers_cannot_tell_is_said(known: Known) -> None:
    folder = write_model(known.root / "one")
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"})
    told = [each.message for each in at(known, folder).findings if each.severity is Severity.INFO]
    assert any("EstimateModel forecasts" in each for each in told)
    single = at(known, write_published(known.root / "two.safetensors", "sd2_single"))
    assert any("do not tell whether it predicts" in each.message for each in single.findings)
