"""Models whose files are blobs: what they are is read from the same bytes, and the blobs stay as long as they are needed."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest
from domains.memory.blobs.blob import BlobSpec, BlobState, BlobTier, MappedFile
from domains.memory.blobs.links import of_model
from domains.memory.blobs.registration_request import Registration as BlobRegistration
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.model.blob_files import MAX_FILES, BlobFolder, BlobPaths, blob_files
from domains.model.blob_models import BlobModels
from domains.model.catalogue import EMBEDDED, Catalogue
from domains.model.edit import ModelEdits
from domains.model.kind import ModelKind
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.model import ModelLayout, ModelState
from domains.model.register import Registered, Registration, Registrations
from domains.model.roots import Roots
from domains.model.weight_file import WeightFile
from domains.storage import open_database
from tests.domains.model.headers import write_header, write_published

UNET = "unet/diffusion_pytorch_model.safetensors"

LORA = {"lora_unet_mid_block_x.lora_down.weight": (4, 8), "lora_unet_mid_block_x.lora_up.weight": (8, 4)}


class Place:
    """A store of blobs over one folder, and a catalogue that knows it."""

    def __init__(self, folder: Path) -> None:
        self.files, self.state = folder / "files", folder / "state"
        self.files.mkdir()
        self.state.mkdir()
        self.database = open_database(self.state)
        self.blobs = BlobStore(self.database, self.state / "blobs", roots=BlobRoots([self.files]))
        self.catalogue = Catalogue(self.database, Roots([]), "emoji-sd")
        self.loaded = LoadedModels()
        self.models = BlobModels(self.catalogue, self.loaded, self.blobs)
        self.registrations = Registrations(self.catalogue, self.models)
        self.edits = ModelEdits(self.catalogue, self.loaded, lambda name: [], lambda model: "", self.models)

    def map(self, path: Path, blob_id: str, **more: object) -> str:
        backing = MappedFile(path=str(path))
        asked = BlobRegistration(backing=backing, blob_id=blob_id, **more)  # pyright: ignore[reportArgumentType]
        return asyncio.run(self.blobs.requests.register(asked)).id

    def folder(self, *, verify: bool = True) -> BlobPaths:
        """The embedded model's files, each a blob."""
        shutil.copytree(EMBEDDED / "emoji-sd", self.files / "m", dirs_exist_ok=True)
        paths = sorted(path for path in (self.files / "m").rglob("*") if path.is_file())
        return tuple(
            (path.relative_to(self.files / "m").as_posix(), self.map(path, f"f{at}", verify=verify))
            for at, path in enumerate(paths)
        )

    def register(self, blobs: BlobPaths, model_id: str = "m") -> Registered:
        return asyncio.run(self.registrations.register(Registration(model_id=model_id, blobs=blobs)))

    def refused(self, blobs: BlobPaths) -> DeviceOpsError:
        with pytest.raises(DeviceOpsError) as caught:
            self.register(blobs)
        return caught.value


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.database.close()


def test_a_folder_of_blobs_is_the_model_that_its_files_are(place: Place) -> None:
    model = place.register(place.folder()).model
    there = place.catalogue.get("emoji-sd")
    assert (model.state, model.layout, model.folder) == (ModelState.AVAILABLE, ModelLayout.DIFFUSERS, "")
    assert (model.sha256, model.family, model.known_prompts) == (there.sha256, there.family, there.known_prompts)
    assert [part.id for part in model.components] == [part.id for part in there.components]
    assert all(stamp.blob_id and Path(stamp.real).is_relative_to(place.files) for stamp in model.files)


@pytest.mark.parametrize(
    ("header", "kind"), [("sd1_single", ModelKind.CHECKPOINT), ("sd_vae", ModelKind.VAE), ("", ModelKind.LORA)]
)
def test_one_blob_is_what_its_header_says(place: Place, header: str, kind: ModelKind) -> None:
    path = place.files / "one.safetensors"
    if header:
        write_published(path, header)
    else:
        write_header(path, LORA)
    model = place.register((("named.safetensors", place.map(path, "w", verify=False)),)).model
    assert (model.kind, model.layout, model.files[0].path, model.files[0].blob_id) == (
        kind,
        ModelLayout.FILE,
        "named.safetensors",
        "w",
    )
    assert asyncio.run(place.models.inspect((("named.safetensors", "w"),))).registered


def test_a_model_of_blobs_has_the_name_that_was_given_else_its_id_else_that_of_its_only_file(place: Place) -> None:
    one = (("loras/style.safetensors", place.map(write_header(place.files / "x.safetensors", LORA), "x")),)
    for model_id, name, shown in (("m", "Mine", "Mine"), ("m", "", "m"), ("", "", "style")):
        assert asyncio.run(place.models.read(one, model_id, name)).display_name == shown
    assert asyncio.run(place.models.read(place.folder(), "", "")).display_name == "model"


def test_a_component_of_blobs_has_its_config(place: Place) -> None:
    folder = EMBEDDED / "emoji-sd" / "vae"
    shutil.copytree(folder, place.files / "vae")
    names = sorted(path.name for path in folder.iterdir())
    model = place.register(tuple((name, place.map(place.files / "vae" / name, f"v{name[0]}")) for name in names)).model
    assert (model.kind, model.layout) == (ModelKind.VAE, ModelLayout.COMPONENT)


def test_what_cannot_be_opened_as_a_file_is_refused_by_name(place: Place) -> None:
    path = write_header(place.files / "x.safetensors", {"emb_params": (8, 768)})
    part = BlobRegistration(backing=MappedFile(path=str(path), offset_bytes=8), blob_id="part", size_bytes=16)
    asyncio.run(place.blobs.requests.register(part))
    spec = BlobSpec(size_bytes=8, tier=BlobTier.HOST, fill_byte=1)
    host = asyncio.run(place.blobs.requests.create(spec))
    for name in ("part", host.id):
        assert place.refused((("x.safetensors", name),)).reason is ErrorReason.INVALID_FIELD
    whole = place.map(path, "whole")
    for bad in ("../x.safetensors", "/x.safetensors", "a//b.safetensors", "a\\b.safetensors", ""):
        assert place.refused(((bad, whole),)).reason is ErrorReason.INVALID_FIELD
    assert place.refused((("a.safetensors", whole), ("a.safetensors", whole))).reason is ErrorReason.INVALID_FIELD


def test_a_blob_that_is_not_there_or_damaged_has_a_reason_of_its_own(place: Place) -> None:
    assert place.refused((("x.safetensors", "nothing"),)).reason is ErrorReason.BLOB_NOT_FOUND
    path = place.files / "x.safetensors"
    path.write_bytes(b"\xff" * 64)
    place.map(path, "noise")
    assert place.refused((("x.safetensors", "noise"),)).reason is ErrorReason.MODEL_CORRUPT
    path.unlink()
    assert place.refused((("x.safetensors", "noise"),)).reason is ErrorReason.BLOB_NOT_FOUND


def test_the_same_blobs_are_the_same_model_and_others_are_not(place: Place) -> None:
    blobs = place.folder()
    first = place.register(blobs)
    assert not first.already_known
    assert place.register(blobs).already_known
    assert place.register(blobs, "").model.id == first.model.id
    other = place.map(write_header(place.files / "x.safetensors", LORA), "other")
    assert place.refused((("x.safetensors", other),)).reason is ErrorReason.ID_TAKEN


def test_blobs_stay_until_the_model_is_forgotten(place: Place) -> None:
    blobs = place.folder()
    place.register(blobs)
    name = dict(blobs)[UNET]
    assert place.blobs.get(name).reader_count == 0
    assert place.blobs.delete(name).deferred
    place.loaded.put(
        LoadedModel(id="m@cpu", model_id="m", device_id="cpu", components=(), load_time_s=1, last_use_time_s=1)
    )
    config = dict(blobs)["unet/config.json"]
    weights = dict(blobs)["vae/diffusion_pytorch_model.safetensors"]
    assert (place.blobs.get(weights).reader_count, place.blobs.get(config).reader_count) == (1, 0)
    assert weights in place.models.read_by(place.loaded.list())
    assert place.models.read_by_any([weights, config, "none"], place.loaded.list()) == {weights}
    place.loaded.remove("m@cpu")
    assert place.models.read_by_any([weights, config], place.loaded.list()) == set()
    assert place.blobs.get(weights).reader_count == 0
    assert set(place.edits.forget("m", "")) == {blob_id for _, blob_id in blobs}
    with pytest.raises(DeviceOpsError):
        place.blobs.get(name)


def test_a_model_of_blobs_ends_with_the_server(place: Place) -> None:
    place.register(place.folder())
    assert Catalogue(place.database, Roots([]), "emoji-sd").find("m") is None


def test_a_lost_blob_makes_its_model_missing_until_both_are_registered_again(place: Place) -> None:
    blobs = place.folder()
    place.register(blobs)
    path = place.files / "m" / UNET
    path.rename(path.with_suffix(".away"))
    assert place.blobs.look(dict(blobs)[UNET]).state is BlobState.LOST
    lost = place.catalogue.get("m")
    assert (lost.state, lost.fault) == (ModelState.MISSING, ErrorReason.BLOB_NOT_FOUND)
    path.with_suffix(".away").rename(path)
    place.edits.forget("m", "")
    assert place.register(place.folder()).model.state is ModelState.AVAILABLE


def test_a_model_whose_lost_blob_is_registered_again_comes_back_by_the_same_blobs_alone(place: Place) -> None:
    blobs = place.folder()
    place.register(blobs)
    path, name = place.files / "m" / UNET, dict(blobs)[UNET]
    data = path.read_bytes()
    path.unlink()
    assert place.blobs.look(name).state is BlobState.LOST
    problem = place.catalogue.get("m").problem
    assert "register the blob again, then the model" in problem
    path.write_bytes(data)
    assert place.map(path, name) == name
    other = tuple((file, place.map(path, "other") if file == UNET else blob) for file, blob in blobs)
    refused = place.refused(other)
    assert (refused.facts["model_id"], "other content" in refused.message) == ("m", True)
    assert place.register(blobs).model.state is ModelState.AVAILABLE
    assert place.blobs.is_held(name, of_model("m"))


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\7")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, ErrorReason.BLOB_NOT_FOUND),
        (shrink, ErrorReason.BLOB_CORRUPT),
        (rewrite, ErrorReason.BLOB_CORRUPT),
    ],
)
def test_a_load_that_meets_a_spoilt_blob_says_so(
    place: Place, spoil: Callable[[Path], None], reason: ErrorReason
) -> None:
    model = place.register(place.folder()).model
    spoil(place.files / "m" / UNET)
    with pytest.raises(DeviceOpsError) as caught, WeightFile(model, UNET) as file:
        for _ in file.checked():
            pass
    assert caught.value.reason is reason


def test_a_model_has_at_least_one_file_and_no_more_than_the_limit(place: Place) -> None:
    for count in (0, MAX_FILES + 1):
        with pytest.raises(InvalidRequest) as refused:
            blob_files(tuple((f"x{at}.safetensors", "x") for at in range(count)), place.blobs)
        assert [each.allowed for each in refused.value.violations] == [f"1..{MAX_FILES} files"]
    most = place.refused(tuple((f"x{at}.safetensors", "nothing") for at in range(MAX_FILES)))
    assert most.reason is ErrorReason.BLOB_NOT_FOUND


def test_bytes_that_are_not_those_of_the_hash_are_refused_as_such(place: Place) -> None:
    path = write_header(place.files / "x.safetensors", LORA)
    blob = place.map(path, "x", verify=True)
    damaged = msgspec.structs.replace(place.blobs.look(blob), state=BlobState.CORRUPT)
    place.blobs.look = lambda name: damaged  # type: ignore[method-assign]
    assert place.refused((("x.safetensors", blob),)).reason is ErrorReason.BLOB_CORRUPT


def test_a_model_that_cannot_have_all_its_blobs_holds_none(place: Place) -> None:
    model = place.register(place.folder()).model
    place.models.let_go(model)
    *files, last = model.files
    lacking = msgspec.structs.replace(model, files=(*files, msgspec.structs.replace(last, blob_id="gone")))
    with pytest.raises(DeviceOpsError) as refused:
        place.models.hold(lacking)
    assert refused.value.reason is ErrorReason.BLOB_NOT_FOUND
    assert not any(place.blobs.is_held(one.blob_id, of_model(model.id)) for one in files)


def test_a_folder_of_blobs_has_no_other_folders_and_files(place: Place) -> None:
    path = write_header(place.files / "x.safetensors", LORA)
    files = blob_files((("vae/x.safetensors", place.map(path, "x")),), place.blobs)
    folder = BlobFolder(Path("/m"), files)
    assert folder.inside(Path("/m/vae")) == Path("/m/vae")
    assert folder.inside(Path("/m/vae/x.safetensors")) == path.resolve()
    for missing in ("unet", "vae/y.safetensors"):
        with pytest.raises(FileNotFoundError, match=missing):
            folder.inside(Path("/m") / missing)


def test_a_spoilt_blob_spoils_its_own_model_alone(place: Place) -> None:
    place.register(place.folder())
    other = place.map(write_header(place.files / "x.safetensors", LORA), "x")
    place.register((("x.safetensors", other),), "style")
    (place.files / "x.safetensors").unlink()
    assert place.blobs.look(other).state is BlobState.LOST
    assert (place.catalogue.get("m").state, place.catalogue.get("style").state) == (
        ModelState.AVAILABLE,
        ModelState.MISSING,
    )
