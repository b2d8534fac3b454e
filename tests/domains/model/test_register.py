"""Models that a caller registers: components of several models, and files that no scan has found yet."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from domains.errors import AlreadyExists, DeviceOpsError, ErrorReason, FailedPrecondition, InvalidRequest, NotFound
from domains.model.catalogue import EMBEDDED, Catalogue
from domains.model.composition import MAX_PARTS, Recipe, follows
from domains.model.edit import MAX_DISPLAY_NAME
from domains.model.model import ModelLayout, ModelState
from domains.model.register import Registered, Registration, Registrations
from domains.model.roots import Roots
from domains.storage import open_database
from tests.domains.model.headers import write_published
from tests.server.model_folders import another

DEMO = "emoji-sd"


class Place:
    """A catalogue over a root with two models and a VAE alone; it can be opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.root.mkdir()
        for name in ("a", "b"):
            another(self.root / name)
        self.database: sqlite3.Connection | None = None
        self.catalogue = self.reopen()
        self.scan()

    def reopen(self) -> Catalogue:
        if self.database:
            self.database.close()
        (self.folder / "state").mkdir(exist_ok=True)
        self.database = open_database(self.folder / "state")
        self.catalogue = Catalogue(self.database, Roots([self.root]), DEMO)
        return self.catalogue

    def scan(self) -> None:
        asyncio.run(self.catalogue.rescan(lambda progress: None, lambda: False))

    def register(self, model_id: str = "", *, base: str = "a", check: bool = False, **taken: str) -> Registered:
        recipe = Recipe(base_id=base, taken=tuple(taken.items()))
        asked = Registration(model_id=model_id, recipe=recipe, validate_only=check)
        return asyncio.run(Registrations(self.catalogue).register(asked))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    assert made.database
    made.database.close()


def configure(place: Place, model: str, component: str, **values: object) -> None:
    """Change values of a component's config and scan."""
    path = place.root / model / component / "config.json"
    changed = json.loads(path.read_text()) | values
    path.unlink()
    path.write_text(json.dumps(changed))
    place.scan()


def test_a_model_of_parts_has_the_files_of_its_sources(place: Place) -> None:
    made = place.register("mix", vae="b", text_encoder=DEMO).model
    assert (made.state, made.family, made.layout) == (ModelState.AVAILABLE, "sd1", ModelLayout.PARTS)
    where = {stamp.path: Path(stamp.real) for stamp in made.files}
    assert where["unet/diffusion_pytorch_model.safetensors"].is_relative_to(place.root / "a")
    assert where["vae/diffusion_pytorch_model.safetensors"].is_relative_to(place.root / "b")
    assert where["text_encoder/model.safetensors"].is_relative_to(EMBEDDED)
    # A text encoder brings its words along.
    assert where["tokenizer/vocab.json"].is_relative_to(EMBEDDED)
    assert made.sha256
    assert made.sha256 not in {place.catalogue.get(name).sha256 for name in ("a", "b", DEMO)}
    assert [model.id for model in place.catalogue.list()] == ["a", "b", DEMO, "mix"]


def test_a_model_of_parts_survives_a_restart_and_a_scan(place: Place) -> None:
    made = place.register("mix", vae="b", text_encoder=DEMO).model
    assert place.reopen().get("mix").same_as(made)
    place.scan()
    assert place.catalogue.get("mix").same_as(made)
    place.catalogue.drop("mix")
    assert place.reopen().find("mix") is None


def test_registering_the_same_again_changes_nothing(place: Place) -> None:
    first = place.register(vae="b")
    again = place.register(vae="b")
    assert (first.already_known, again.already_known, again.model) == (False, True, first.model)
    with pytest.raises(AlreadyExists):
        place.register("b", vae=DEMO)


def test_a_check_registers_nothing(place: Place) -> None:
    assert place.register("mix", check=True, vae="b").model.id == "mix"
    assert place.catalogue.find("mix") is None


def test_parts_that_do_not_fit_are_refused_before_anything_moves(place: Place) -> None:
    configure(place, "b", "vae", latent_channels=16)
    with pytest.raises(DeviceOpsError, match=r"latent_channels=16.*in_channels=4") as refused:
        place.register(vae="b")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    configure(place, "b", "text_encoder", hidden_size=200)
    with pytest.raises(DeviceOpsError, match="hidden_size=200") as refused:
        place.register(text_encoder="b")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert [model.id for model in place.catalogue.list()] == ["a", "b", DEMO]


def test_each_wrong_part_has_its_reason(place: Place) -> None:
    with pytest.raises(NotFound):
        place.register(vae="nobody")
    with pytest.raises(InvalidRequest, match="text_encoder_2"):
        place.register(text_encoder_2="b")
    write_published(place.root / "canny.safetensors", "sd1_controlnet")
    place.scan()
    with pytest.raises(DeviceOpsError, match="has no component vae") as refused:
        place.register(vae="canny")
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING


def test_a_model_that_cannot_be_used_gives_no_part(place: Place) -> None:
    weights = place.root / "b" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.write_bytes(b"no weights")
    place.scan()
    for base, source in (("b", "a"), ("a", "b")):
        with pytest.raises(DeviceOpsError, match="model b cannot be used") as refused:
            place.register(base=base, text_encoder=source)
        assert refused.value.reason is ErrorReason.MODEL_CORRUPT


def test_a_model_of_parts_gives_no_part(place: Place) -> None:
    place.register("mix", vae="b")
    for base, source in (("mix", "a"), ("a", "mix")):
        with pytest.raises(DeviceOpsError, match="made of parts itself") as refused:
            place.register(base=base, vae=source)
        assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_a_text_encoder_of_another_familys_single_file_is_refused(place: Place) -> None:
    write_published(place.root / "xl.safetensors", "sdxl_single")
    place.scan()
    with pytest.raises(DeviceOpsError, match="stored as sdxl stores it") as refused:
        place.register(text_encoder="xl")
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_a_model_of_parts_is_missing_when_a_source_is_not_known_any_more(place: Place) -> None:
    place.register("mix", vae="b")
    shutil.rmtree(place.root / "b")
    place.catalogue.drop("b")
    place.scan()
    gone = place.catalogue.get("mix")
    assert (gone.state, gone.reason) == (ModelState.MISSING, ErrorReason.COMPONENT_MISSING)
    assert "not known any more" in gone.problem


def test_a_single_file_that_is_gone_or_unreadable_has_no_hash(place: Place) -> None:
    path = write_published(place.root / "one.safetensors", "sd1_single")
    place.scan()
    model = place.catalogue.get("one")
    path.unlink()
    with pytest.raises(DeviceOpsError, match="is gone") as refused:
        place.catalogue.hashed(model)
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    path.mkdir()
    with pytest.raises(DeviceOpsError, match="cannot be read") as refused:
        place.catalogue.hashed(model)
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT


def test_components_in_a_circle_are_refused_with_the_way_round(place: Place) -> None:
    place.register("mix", vae="b")
    with pytest.raises(FailedPrecondition) as own:
        place.register("mix", base="mix")
    assert (own.value.reason, own.value.facts["path"]) == (ErrorReason.DEPENDENCY_CYCLE, "mix → mix")
    place.catalogue.drop("b")
    with pytest.raises(FailedPrecondition) as way:
        place.register("b", vae="mix")
    assert (way.value.reason, way.value.facts["path"]) == (ErrorReason.DEPENDENCY_CYCLE, "b → mix → b")
    assert place.catalogue.find("b") is None


def test_a_circle_in_what_is_stored_is_told_and_does_not_hang(place: Place) -> None:
    """As no call makes it: two models that name each other."""
    for name in ("one", "two"):
        assert place.register(name, vae="b").model.taken
    models = {one.id: one for one in place.catalogue.list()}
    models |= {
        name: msgspec.structs.replace(models[name], taken=(("vae", other),))
        for name, other in (("one", "two"), ("two", "one"))
    }
    for name in ("one", "two"):
        told = follows(models[name], models)
        assert (told.state, told.reason) == (ModelState.INCOMPATIBLE, ErrorReason.DEPENDENCY_CYCLE)


def test_a_model_of_parts_follows_its_sources(place: Place) -> None:
    place.register("mix", vae="b")
    shutil.move(place.root / "b", place.folder / "away")
    place.scan()
    gone = place.catalogue.get("mix")
    assert (gone.state, gone.reason) == (ModelState.MISSING, ErrorReason.COMPONENT_MISSING)
    shutil.move(place.folder / "away", place.root / "b")
    place.scan()
    assert place.catalogue.get("mix").state is ModelState.AVAILABLE


def test_a_file_is_known_under_the_id_that_it_was_given(place: Place) -> None:
    path = write_published(place.root / "x.safetensors", "sd1_single")
    asked = Registration(model_id="mine", path=str(path), labels=(("team", "art"),))
    made = asyncio.run(Registrations(place.catalogue).register(asked))
    assert (made.model.id, made.model.state, made.model.labels) == ("mine", ModelState.AVAILABLE, (("team", "art"),))
    place.scan()
    assert {model.id for model in place.catalogue.list()} == {"a", "b", DEMO, "mine"}
    again = asyncio.run(Registrations(place.catalogue).register(asked))
    assert again.already_known


def test_a_single_file_gives_its_parts_too(place: Place) -> None:
    write_published(place.root / "kl.safetensors", "sd_ldm_vae")
    write_published(place.root / "one.safetensors", "sd1_single")
    place.scan()
    made = place.register("mix", base="one", vae="kl").model
    where = {stamp.path: Path(stamp.real).name for stamp in made.files}
    assert (where["one.safetensors"], where["kl.safetensors"]) == ("one.safetensors", "kl.safetensors")
    vae = next(component for component in made.components if component.id == "vae")
    assert vae.layout is ModelLayout.FILE
    assert "vae/config.json" in vae.files


def test_a_component_whose_files_are_gone_or_unreadable_has_no_hash(place: Place) -> None:
    shutil.copytree(place.root / "a" / "vae", place.root / "kl")
    place.scan()
    model = place.catalogue.get("kl")
    hashed = place.catalogue.hashed_whole(model)
    assert hashed.sha256
    assert sorted(one.path for one in hashed.files) == sorted(one.path for one in model.files)
    assert [one.path.endswith(".safetensors") for one in hashed.files if one.sha256] == [True]
    path = place.root / "kl" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    with pytest.raises(DeviceOpsError, match="is gone") as refused:
        place.catalogue.hashed_whole(model)
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING
    path.mkdir()
    with pytest.raises(DeviceOpsError, match="cannot be read") as refused:
        place.catalogue.hashed_whole(model)
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT


def register_path(place: Place, path: Path, model_id: str = "") -> Registered:
    return asyncio.run(Registrations(place.catalogue).register(Registration(model_id=model_id, path=str(path))))


def test_files_that_are_known_keep_their_id(place: Place) -> None:
    for model_id in ("", "a"):
        made = register_path(place, place.root / "a", model_id)
        assert (made.model.id, made.already_known) == ("a", True)
    with pytest.raises(AlreadyExists, match="are known already, as model a"):
        register_path(place, place.root / "a", "mine")
    assert place.catalogue.find("mine") is None


def test_files_that_are_no_usable_model_are_not_registered_and_a_known_one_stays(place: Place) -> None:
    another(place.root / "c")
    (place.root / "c" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(DeviceOpsError) as refused:
        register_path(place, place.root / "c")
    assert refused.value.reason is ErrorReason.MODEL_CORRUPT
    assert place.catalogue.find("c") is None
    place.scan()
    assert register_path(place, place.root / "c").model.state is ModelState.CORRUPT


MANY = tuple((f"p{number}", "b") for number in range(MAX_PARTS + 1))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Registration(display_name="x" * (MAX_DISPLAY_NAME + 1), recipe=Recipe(base_id="a", taken=())), "display_name"),
        (Registration(), "source"),
        (Registration(recipe=Recipe(base_id="", taken=())), "parts_source.base_model_id"),
        (Registration(recipe=Recipe(base_id="a", taken=MANY)), "parts_source.components"),
    ],
)
def test_a_request_that_names_nothing_or_too_much_is_refused_by_its_field(
    place: Place, asked: Registration, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(Registrations(place.catalogue).register(asked))
    assert [each.field for each in refused.value.violations] == [field]


def test_a_name_may_be_as_long_as_the_limit_and_as_many_parts_are_looked_for(place: Place) -> None:
    longest = Registration(
        display_name="x" * MAX_DISPLAY_NAME, recipe=Recipe(base_id="a", taken=()), validate_only=True
    )
    assert asyncio.run(Registrations(place.catalogue).register(longest)).model.display_name == longest.display_name
    asked = Registration(recipe=Recipe(base_id="a", taken=MANY[:-1]))
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(Registrations(place.catalogue).register(asked))
    assert "parts_source.components" not in [each.field for each in refused.value.violations]
