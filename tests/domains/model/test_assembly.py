"""Models of a request alone: components that a family lacks, needs or that do not fit are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, NotFound
from domains.model.assembly import assembled, assembly_of
from domains.model.kind import ModelKind
from domains.model.model import Model
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
