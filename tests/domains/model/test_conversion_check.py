"""What cannot be converted is said beforehand, by the field that asks for it."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from domains.errors import (
    AlreadyExists,
    DeviceOpsError,
    ErrorReason,
    InternalError,
    InvalidRequest,
    PermissionDenied,
    ResourceExhausted,
)
from domains.failure import Failure
from domains.model.conversion import Conversion, ConversionOrder, Ended, Told
from domains.model.conversion_check import check_conversion
from domains.model.convert_model import convert_model
from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model, ModelLayout
from domains.model.roots import Roots
from domains.model.walk import places
from domains.model.weights_model import read_file
from tests.domains.model.folders import UNET, write_json, write_model
from tests.domains.model.headers import write_published
from tests.domains.model.known import known_in

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def folder(path: Path) -> Model:
    return read_folder(path, path.name, lambda inner: inner, Fingerprints())


def refused(root: Path, model: Model, **asked: Any) -> tuple[ErrorReason, list[str]]:
    """The reason, and the fields without the name of the message."""
    words: dict[str, Any] = {"model_id": model.id, "destination": str(root / "new"), **asked}
    given = Conversion(**words)
    with pytest.raises(InvalidRequest) as error:
        check_conversion(given, model, Roots([root]))
    return error.value.reason, [one.field.removeprefix("model_conversion.") for one in error.value.violations]


def packed(root: Path, **tensors: np.ndarray[Any, Any]) -> Model:
    """A model with these tensors in its VAE."""
    write_model(root / "m")
    save_file({name.replace("__", "."): value for name, value in tensors.items()}, root / "m" / WEIGHTS)
    return folder(root / "m")


@pytest.mark.parametrize("beside", ["scale", "scale_weight", "weight_scale", "zero_point", "svd_up"])
def test_quantized_weights_are_not_converted_but_kept_and_copied(tmp_path: Path, beside: str) -> None:
    values = {"a__weight": np.ones((2, 2), np.int8), f"a__{beside}": np.ones(2, np.float16)}
    model = packed(tmp_path, **values)
    assert refused(tmp_path, model, precision="float32") == (ErrorReason.UNSUPPORTED_COMBINATION, ["precision"])
    able: list[dict[str, Any]] = [{}, {"precision": "float32", "keep": ("vae",)}]
    for fine in able:
        given = Conversion(model_id="m", destination=str(tmp_path / "new"), **fine)
        assert check_conversion(given, model, Roots([tmp_path])) == tmp_path / "new"


def test_a_method_that_the_config_names_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    write_json(tmp_path / "m/unet/config.json", {**UNET, "quantization_config": {"quant_method": "sdnq"}})
    given = Conversion(model_id="m", destination=str(tmp_path / "new"), precision="float32")
    with pytest.raises(InvalidRequest, match="unet is quantized with sdnq"):
        check_conversion(given, folder(tmp_path / "m"), Roots([tmp_path]))


def test_scales_of_norms_and_position_ids_are_no_quantization(tmp_path: Path) -> None:
    model = packed(tmp_path, norm__scale=np.ones(4, np.float16), ids__weight=np.ones((1, 77), np.int64))
    given = Conversion(model_id="m", destination=str(tmp_path / "new"), precision="float32")
    assert check_conversion(given, model, Roots([tmp_path])) == tmp_path / "new"


def test_the_name_of_the_result_says_file_or_folder(tmp_path: Path) -> None:
    model = folder(write_model(tmp_path / "m"))
    wrong = (ErrorReason.INVALID_FIELD, ["destination_path"])
    assert refused(tmp_path, model, destination=str(tmp_path / "new.safetensors")) == wrong
    assert refused(tmp_path, model, destination="new") == wrong


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    model = folder(write_model(tmp_path / "m"))
    found = refused(tmp_path, model, destination="new", keep=("vae", "hat"), new_model_id="No Id")
    assert found == (ErrorReason.INVALID_FIELD, ["destination_path", "keep_component_ids[1]", "new_model_id"])


def test_a_file_that_is_no_whole_checkpoint_becomes_no_folder(tmp_path: Path) -> None:
    path = write_published(tmp_path / "vae.safetensors", "sd_vae")
    model = read_file(path, "vae", "vae")
    found = refused(tmp_path, model, layout=ModelLayout.DIFFUSERS)
    assert found == (ErrorReason.UNSUPPORTED_COMBINATION, ["format"])


def test_a_result_lies_in_a_root_and_takes_the_place_of_nothing(tmp_path: Path) -> None:
    model = folder(write_model(tmp_path / "root/m"))
    roots = Roots([tmp_path / "root"])
    with pytest.raises(PermissionDenied) as outside:
        check_conversion(Conversion(model_id="m", destination=str(tmp_path / "root/../new")), model, roots)
    assert outside.value.reason is ErrorReason.PATH_OUTSIDE_ROOTS
    (tmp_path / "root/link").symlink_to(tmp_path / "nowhere")
    for name, kind in (("m", AlreadyExists), ("link", PermissionDenied)):
        with pytest.raises(kind):
            check_conversion(Conversion(model_id="m", destination=str(tmp_path / "root" / name)), model, roots)


def test_a_scan_passes_by_what_is_being_written(tmp_path: Path) -> None:
    write_model(tmp_path / ".new.job-1.part")
    write_model(tmp_path / "new")
    found = places(Roots([tmp_path]), [tmp_path], lambda path, reason, message: None)
    assert [place.path.name for place in found] == ["new"]


def test_a_model_that_is_not_whole_is_not_converted(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    (tmp_path / "m" / WEIGHTS).write_bytes(b"\xff" * 100)
    given = Conversion(model_id="m", destination=str(tmp_path / "new"))
    for reason in (ErrorReason.MODEL_CORRUPT, ErrorReason.COMPONENT_MISSING):
        with pytest.raises(DeviceOpsError) as refused:
            check_conversion(given, folder(tmp_path / "m"), Roots([tmp_path]))
        assert refused.value.reason is reason
        (tmp_path / "m" / WEIGHTS).unlink(missing_ok=True)


def _said(*ends: Told | Ended, last: str = "") -> list[str]:
    """The command of a process that takes its order and says this, then ends with 3."""
    text = "".join(msgspec.json.encode(each).decode() + "\n" for each in ends) + last
    return [sys.executable, "-c", f"import sys; input(); print({text!r}, end='', flush=True); sys.exit(3)"]


async def test_what_the_process_of_a_conversion_says_is_the_callers(tmp_path: Path) -> None:
    order = ConversionOrder(
        model=folder(write_model(tmp_path / "m")), layout=ModelLayout.DIFFUSERS, part=str(tmp_path / "part")
    )
    told: list[tuple[int, int]] = []

    def tell(written: int, total: int) -> None:
        told.append((written, total))

    full = Failure(reason=ErrorReason.STORAGE_FULL, message="the disk is full", facts={"path": "p"})
    with pytest.raises(ResourceExhausted, match="the disk is full") as failed:
        await convert_model(order, tell, _said(Told(written=1, total=2), Ended(failure=full)))
    assert (failed.value.reason, failed.value.facts, told) == (full.reason, {"path": "p"}, [(1, 2)])
    for last in ("", '{"type":"to'):
        with pytest.raises(InternalError, match="ended with status 3"):
            await convert_model(order, tell, _said(last=last))


async def test_a_result_takes_no_id_that_another_model_has(tmp_path: Path) -> None:
    with known_in(tmp_path) as known:
        asked = Conversion(model_id="emoji-sd", destination=str(known.root / "new"), new_model_id="new")
        assert await known.catalogue.destination(asked) == known.root / "new"
        with pytest.raises(AlreadyExists):
            await known.catalogue.destination(msgspec.structs.replace(asked, new_model_id="emoji-sd"))


@pytest.mark.parametrize(
    ("layout", "name", "says"),
    [
        (ModelLayout.FILE, "new", "'new' does not fit: a single file is written, and its name ends in .safetensors"),
        (ModelLayout.DIFFUSERS, "new.safetensors", "'new.safetensors' does not fit: a folder is written"),
    ],
)
def test_a_name_that_does_not_fit_what_is_written_is_told_with_what_would(
    tmp_path: Path, layout: ModelLayout, name: str, says: str
) -> None:
    write_model(tmp_path / "m")
    asked = Conversion(model_id="m", destination=str(tmp_path / name), layout=layout)
    with pytest.raises(InvalidRequest) as error:
        check_conversion(asked, folder(tmp_path / "m"), Roots([tmp_path]))
    assert [one.message for one in error.value.violations] == [says]


def test_components_that_a_model_lacks_are_named_with_those_it_has(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    asked = Conversion(model_id="m", destination=str(tmp_path / "new"), keep=("vae", "wings"))
    with pytest.raises(InvalidRequest) as error:
        check_conversion(asked, folder(tmp_path / "m"), Roots([tmp_path]))
    assert [one.field for one in error.value.violations] == ["model_conversion.keep_component_ids[1]"]
    assert "has no component 'wings'; it has" in error.value.violations[0].message
