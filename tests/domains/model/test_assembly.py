"""Models of a request alone: components that a family lacks, needs or that do not fit are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, NotFound
from domains.model.assembly import assembled, assembled_id, assembly_of
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelLayout
from tests.domains.model.folders import age, write_model
from tests.domains.model.known import Known, known_in


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    with known_in(tmp_path) as known:
        for weight, name in enumerate(("one", "two")):
            write_model(known.root / name, float(weight))
        age(known.root)
        known.scan()
        yield known


def made(known: Known, model_id: str, **two: object) -> Model:
    """An assembled model, where `two` has these fields."""
    models = {"one": known.model("one"), "two": replace(known.model("two"), **two)}
    assembly = assembly_of(model_id)
    assert assembly is not None
    return assembled(assembly, models.__getitem__)


def refused(known: Known, model_id: str, **two: object) -> DeviceOpsError:
    with pytest.raises(DeviceOpsError) as caught:
        made(known, model_id, **two)
    return caught.value


def test_a_model_with_the_component_of_another_has_that_ones_files(known: Known) -> None:
    found = made(known, "one+vae=two")
    assert (found.id, found.base_id, found.taken, found.fault) == ("one+vae=two", "one", (("vae", "two"),), None)
    assert {part.id for part in found.components} == {part.id for part in known.model("one").components}
    for stamp in found.files:
        source = "two" if stamp.path.startswith("vae/") else "one"
        assert stamp.real == str((known.root / source / stamp.path).resolve())
    assert found.sha256 not in ("", known.model("one").sha256)


def test_components_that_the_family_lacks_are_all_named(known: Known) -> None:
    error = refused(known, "one+wings=two+tail=+vae=two")
    assert isinstance(error, InvalidRequest)
    assert [one.field for one in error.violations] == ["components"] * 2
    assert ["'wings'" in one.message for one in error.violations] == [True, False]


def test_a_component_that_is_needed_cannot_be_left_out(known: Known) -> None:
    error = refused(known, "one+vae=")
    assert (error.reason, error.facts["component"]) == (ErrorReason.COMPONENT_MISSING, "vae")


@pytest.mark.parametrize(
    ("component", "fields", "fits"),
    [
        ("unet", {}, True),
        ("unet", {"family": "sdxl"}, False),
        ("unet", {"variant": "inpainting"}, False),
        ("vae", {"variant": "inpainting"}, True),
        ("vae", {"family": "sdxl"}, True),
        ("vae", {"family": "flux1"}, False),
        ("vae", {"kind": ModelKind.VAE, "compatible_families": ("sdxl", "sd1")}, True),
        ("vae", {"kind": ModelKind.VAE, "compatible_families": ("flux1",)}, False),
        ("vae", {"kind": ModelKind.VAE}, True),
        ("text_encoder", {"family": "sdxl"}, True),
    ],
)
def test_a_component_of_another_family_is_taken_only_where_it_fits(
    known: Known, component: str, fields: dict[str, object], fits: bool
) -> None:
    model_id = f"one+{component}=two"
    if fits:
        assert made(known, model_id, **fields).taken == ((component, "two"),)
        return
    error = refused(known, model_id, **fields)
    assert (error.reason, error.facts["model_id"], error.facts["component"]) == (
        ErrorReason.MODEL_INCOMPATIBLE,
        "two",
        component,
    )


def test_what_is_assembled_for_requests_can_be_read_and_not_changed(known: Known) -> None:
    catalogue = known.catalogue
    model = catalogue.get("one+vae=two")
    assert model.id == "one+vae=two"
    for change in (lambda: catalogue.annotate(model, catalogue.notes.of("one")), lambda: catalogue.drop(model.id)):
        with pytest.raises(NotFound, match="assembled for requests alone; name one instead") as error:
            change()
        assert error.value.reason is ErrorReason.MODEL_NOT_FOUND
    assert [one.id for one in catalogue.list() if not one.embedded] == ["one", "two"]
    catalogue.drop("two")
    with pytest.raises(NotFound):
        catalogue.get("one+vae=two")


def test_an_assembled_model_is_made_once_and_anew_when_a_source_has_changed(known: Known) -> None:
    first = known.model("one+vae=two")
    assert known.model("one+vae=two") is first
    assert known.catalogue.find("one+vae=two") is first
    write_model(known.root / "two", 7.0)
    age(known.root, 2)
    known.scan()
    again = known.model("one+vae=two")
    assert (again is first, again.sha256 == first.sha256) == (False, False)
    assert known.catalogue.find("one+wings=two") is None
    assert known.catalogue.find("absent+vae=two") is None


def test_the_sources_of_an_assembled_model_are_hashed_and_those_of_no_other(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = list[str]()

    def content_hashed(model: Model) -> Model:
        hashed.append(model.id)
        return model

    monkeypatch.setattr(known.catalogue, "content_hashed", content_hashed)
    known.catalogue.hash_sources("one")
    known.catalogue.hash_sources("absent")
    assert hashed == []
    known.catalogue.hash_sources("one+vae=two")
    assert hashed == ["one", "two"]


@pytest.mark.parametrize(
    ("layout", "sha256", "read"),
    [
        (ModelLayout.FILE, "", True),
        (ModelLayout.FILE, "known", False),
        (ModelLayout.PARTS, "", False),
        (ModelLayout.PARTS, "known", False),
    ],
)
def test_a_model_is_hashed_unless_its_hash_is_known_or_it_has_none(
    known: Known, monkeypatch: pytest.MonkeyPatch, layout: ModelLayout, sha256: str, read: bool
) -> None:
    monkeypatch.setattr(known.catalogue, "hashed_whole", lambda model: replace(model, sha256="read"))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    model = replace(known.model("one"), layout=layout, sha256=sha256)
    assert known.catalogue.content_hashed(model).sha256 == ("read" if read else sha256)


def test_an_id_names_components_in_their_order(known: Known) -> None:
    assert assembled_id("one", {}) == "one"
    assert assembled_id("one", {"vae": "two", "unet": "three", "tokenizer": ""}) == "one+tokenizer=+unet=three+vae=two"


@pytest.mark.parametrize("model_id", ["one", "one+vae", "one+=two", "+vae=two", "one+vae=two+", ""])
def test_an_id_without_a_base_a_component_or_its_source_names_no_assembly(model_id: str) -> None:
    assert assembly_of(model_id) is None
