"""What a validation finds wrong with a model's files, at each depth, and what the catalogue remembers of it."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from domains.errors import ErrorReason, PermissionDenied
from domains.model.file_check import check_file
from domains.model.fingerprint import HashCancelled
from domains.model.model import Model, ModelState
from domains.model.validate import Validator
from domains.model.validation import MAX_FINDINGS, Depth, Validation, ValidationReport
from domains.progress import Progressed, Stage, Unit
from domains.reasons import Severity
from tests.domains.model.folders import UNET_TENSORS, age, write_json, write_model, write_weights
from tests.domains.model.headers import write_header, write_published
from tests.domains.model.known import Known, known_in

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


class Validated:
    """A scanned model `one`, an hour old, that can be spoilt and validated."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.folder = write_model(known.root / "one")
        age(self.folder)
        known.scan()
        self.progress: list[Progressed] = []

    def report(
        self, depth: Depth = Depth.CHECKSUM, *parts: str, expected: str = "", name: str = "one"
    ) -> ValidationReport:
        asked = Validation(model_id=name, depth=depth, component_ids=parts, expected_sha256=expected)
        return asyncio.run(self.known.catalogue.validate(asked, self.progress.append, lambda: False))

    @property
    def model(self) -> Model:
        return self.known.model("one")

    def flip(self, path: str, at: int = -1) -> None:
        """Change one byte and keep the file's size and times."""
        file = self.folder / path
        data, times = bytearray(file.read_bytes()), file.stat()
        data[at] ^= 1
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def spoilt(tmp_path: Path) -> Iterator[Validated]:
    with known_in(tmp_path) as known:
        yield Validated(known)


def told(report: ValidationReport) -> list[tuple[str, ErrorReason | None]]:
    return [(each.field, each.reason) for each in report.findings]


def test_a_folder_whose_index_is_gone_holds_no_model_any_more(spoilt: Validated) -> None:
    (spoilt.folder / "model_index.json").unlink()
    report = spoilt.report()
    assert (report.valid, report.model.state) == (False, ModelState.MISSING)
    assert told(report) == [("", ErrorReason.COMPONENT_MISSING)]
    assert "holds no model any more" in report.findings[0].message


@pytest.mark.parametrize(("depth", "passes"), [(Depth.HEADER, 0), (Depth.CHECKSUM, 1), (Depth.VALUES, 2)])
def test_a_whole_model_is_valid_and_its_weights_are_read_as_often_as_the_depth_needs(
    spoilt: Validated, depth: Depth, passes: int
) -> None:
    before = spoilt.model
    report = spoilt.report(depth)
    headers = sum(int.from_bytes(f.read_bytes()[:8], "little") + 8 for f in spoilt.folder.rglob("*.safetensors"))
    size = sum(file.stat().st_size for file in spoilt.folder.rglob("*.safetensors"))
    assert (report.valid, report.depth, report.findings) == (True, depth, ())
    assert report.read_bytes == passes * size - (headers if passes == 2 else 0)
    assert report.tensor_count == len(UNET_TENSORS) + 2
    assert report.non_finite_count == (0 if passes == 2 else None)
    assert 0 < report.duration_s < 60
    assert spoilt.model == report.model
    assert spoilt.model.same_as(before)
    assert spoilt.model.validate_time_s > before.validate_time_s == 0.0


def test_progress_counts_the_bytes_of_all_passes(spoilt: Validated) -> None:
    report = spoilt.report(Depth.VALUES)
    size = sum(file.stat().st_size for file in spoilt.folder.rglob("*.safetensors"))
    assert {(each.stage, each.unit, each.total) for each in spoilt.progress} == {
        (Stage.VERIFYING, Unit.BYTES, 2 * size)
    }
    counts = [each.completed for each in spoilt.progress]
    assert 0 < counts[0] <= counts[-1] <= report.read_bytes
    assert counts == sorted(counts)


def test_a_flipped_byte_makes_the_model_corrupt_until_it_is_mended(spoilt: Validated) -> None:
    noted = spoilt.model.sha256
    spoilt.flip(VAE)
    report = spoilt.report()
    assert told(report) == [(VAE, ErrorReason.MODEL_CORRUPT)]
    assert not report.valid
    assert (report.model.state, report.model.sha256) == (ModelState.CORRUPT, noted)
    assert "its content differs" in spoilt.model.problem
    spoilt.flip(VAE)
    assert spoilt.report().valid
    assert spoilt.model.state is ModelState.AVAILABLE


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([UNET, VAE, TEXT]), at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_byte_that_is_changed_anywhere_is_found(spoilt: Validated, path: str, at: float, bits: int) -> None:
    """In the header's length, the header, the padding or any weight; the file's size and times stay."""
    stamp = spoilt.model.stamp(path)
    file = Path(stamp.real)
    whole, times = file.read_bytes(), file.stat()
    data = bytearray(whole)
    data[int(at * len(data))] ^= bits
    try:
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        checked = check_file(spoilt.model, stamp, Depth.CHECKSUM, lambda: False, lambda size: None)
    finally:
        file.write_bytes(whole)
    assert [finding.field for finding in checked.findings][:1] == [path]
    assert {finding.reason for finding in checked.findings} == {ErrorReason.MODEL_CORRUPT}


def test_a_header_alone_shows_no_flipped_byte(spoilt: Validated) -> None:
    spoilt.flip(VAE)
    assert spoilt.report(Depth.HEADER).valid


def test_only_the_chosen_components_are_looked_at(spoilt: Validated) -> None:
    spoilt.flip(VAE)
    (spoilt.folder / "tokenizer" / "tokenizer_config.json").unlink()
    assert spoilt.report(Depth.CHECKSUM, "unet", "text_encoder").valid
    assert told(spoilt.report(Depth.CHECKSUM, "vae", "unet")) == [(VAE, ErrorReason.MODEL_CORRUPT)]
    assert ("tokenizer/tokenizer_config.json", ErrorReason.COMPONENT_MISSING) in told(
        spoilt.report(Depth.CHECKSUM, "tokenizer")
    )


def test_files_and_components_that_are_gone_are_named(spoilt: Validated) -> None:
    shutil.rmtree(spoilt.folder / "vae")
    (spoilt.folder / "tokenizer" / "tokenizer_config.json").unlink()
    report = spoilt.report()
    assert {("vae", ErrorReason.COMPONENT_MISSING), (VAE, ErrorReason.COMPONENT_MISSING)} <= set(told(report))
    assert ("tokenizer/tokenizer_config.json", ErrorReason.COMPONENT_MISSING) in told(report)
    assert report.model.state is ModelState.INCOMPATIBLE
    assert report.depth is Depth.HEADER, "not every file was hashed"


def test_a_damaged_part_that_no_family_needs_is_a_warning(spoilt: Validated) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": ["stable_diffusion", "Checker"]}
    write_json(spoilt.folder / "safety_checker" / "config.json", {})
    write_json(
        spoilt.folder / "model_index.json",
        {**index, **{name: ["diffusers", name] for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}},
    )
    (spoilt.folder / "safety_checker" / "model.safetensors").write_bytes(b"x")
    spoilt.known.scan()
    report = spoilt.report()
    assert [(each.field, each.severity) for each in report.findings] == [("safety_checker", Severity.WARNING)]
    assert report.valid
    assert spoilt.report(Depth.CHECKSUM, "unet").findings == ()


def test_a_folder_that_is_gone_is_missing(spoilt: Validated) -> None:
    shutil.rmtree(spoilt.folder)
    report = spoilt.report()
    assert report.model.state is ModelState.MISSING
    assert "holds no model any more" in report.model.problem
    assert ErrorReason.COMPONENT_MISSING in [each.reason for each in report.findings]
    assert spoilt.model.sha256, "the noted hash says which bytes it should have"


def test_an_index_that_cannot_be_read_is_told_once(spoilt: Validated) -> None:
    (spoilt.folder / "model_index.json").write_bytes(b"{")
    report = spoilt.report()
    assert [each.reason for each in report.findings if each.field == ""] == [ErrorReason.MODEL_CORRUPT]
    assert report.model.state is ModelState.CORRUPT


def test_the_expected_hash_is_compared_in_either_case_and_changes_no_state(spoilt: Validated) -> None:
    assert spoilt.report(expected=spoilt.model.sha256.upper()).valid
    report = spoilt.report(expected="0" * 64)
    assert told(report) == [("expected_sha256", ErrorReason.MODEL_CORRUPT)]
    assert not report.valid
    assert spoilt.model.state is ModelState.AVAILABLE


def test_values_that_are_not_finite_are_counted_and_stay_known_over_a_scan(spoilt: Validated) -> None:
    weights = {name: np.ones((2, 3), "float16") for name in UNET_TENSORS}
    weights[UNET_TENSORS[0]][0, :2] = np.nan
    weights[UNET_TENSORS[1]][1, 1] = np.inf
    save_file(weights, spoilt.folder / UNET)
    age(spoilt.folder)
    spoilt.known.scan()
    assert spoilt.report().valid
    report = spoilt.report(Depth.VALUES)
    assert [each.field for each in report.findings] == [f"{UNET}:{UNET_TENSORS[0]}", f"{UNET}:{UNET_TENSORS[1]}"]
    assert report.non_finite_count == 3
    spoilt.known.scan()
    assert spoilt.model.state is ModelState.CORRUPT
    with known_in(spoilt.known.root.parent) as again:
        assert again.model("one").state is ModelState.CORRUPT
    write_model(spoilt.folder, value=2.0)
    age(spoilt.folder)
    spoilt.known.scan()
    assert spoilt.model.state is ModelState.AVAILABLE


def test_a_report_holds_at_most_its_limit_with_the_gravest_first(spoilt: Validated) -> None:
    names = tuple(f"layer_{number}" for number in range(MAX_FINDINGS + 5))
    write_weights(spoilt.folder / UNET, (*UNET_TENSORS, *names), value=float("nan"))
    age(spoilt.folder)
    spoilt.known.scan()
    report = spoilt.report(Depth.VALUES)
    assert len(report.findings) == MAX_FINDINGS
    assert {each.severity for each in report.findings} == {Severity.ERROR}


def test_a_single_file_gets_its_hash_from_its_validation_and_keeps_it(spoilt: Validated) -> None:
    path = spoilt.known.root / "alone.safetensors"
    shutil.copy(spoilt.folder / VAE, path)
    os.utime(path, (1e9, 1e9))
    spoilt.known.scan()
    assert spoilt.known.model("alone").sha256 == ""
    report = spoilt.report(name="alone")
    assert report.model.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert spoilt.report(name="alone", expected=report.model.files[0].sha256).valid == report.valid
    spoilt.known.scan()
    with known_in(spoilt.known.root.parent) as again:
        assert again.model("alone").sha256 == spoilt.known.model("alone").sha256 == report.model.sha256 != ""


def test_a_look_at_the_header_of_a_single_file_gives_it_no_hash(spoilt: Validated) -> None:
    shutil.copy(spoilt.folder / VAE, spoilt.known.root / "alone.safetensors")
    spoilt.known.scan()
    report = spoilt.report(Depth.HEADER, name="alone")
    assert ([one.path for one in report.model.files], report.model.sha256) == (["alone.safetensors"], "")


def test_a_cancelled_validation_changes_nothing(spoilt: Validated) -> None:
    before = spoilt.model
    with pytest.raises(HashCancelled):
        asyncio.run(spoilt.known.catalogue.validate(Validation(model_id="one"), spoilt.progress.append, lambda: True))
    assert spoilt.model == before
    assert spoilt.model.validate_time_s == 0.0


def test_a_model_that_was_forgotten_meanwhile_does_not_come_back(spoilt: Validated) -> None:
    def forget(told: Progressed) -> None:
        if spoilt.known.catalogue.find("one"):
            loop.call_soon_threadsafe(spoilt.known.catalogue.drop, "one")

    async def run() -> ValidationReport:
        nonlocal loop
        loop = asyncio.get_running_loop()
        return await spoilt.known.catalogue.validate(Validation(model_id="one"), forget, lambda: False)

    loop: asyncio.AbstractEventLoop
    assert asyncio.run(run()).valid
    assert spoilt.known.catalogue.find("one") is None


def test_a_link_in_the_place_of_a_file_is_not_followed(spoilt: Validated) -> None:
    outside = spoilt.known.state / "weights"
    shutil.move(spoilt.folder / TEXT, outside)
    (spoilt.folder / TEXT).symlink_to(outside)
    with pytest.raises(PermissionDenied) as refused:
        spoilt.report()
    assert refused.value.reason is ErrorReason.PATH_OUTSIDE_ROOTS


def test_another_hash_than_expected_is_told_with_the_one_that_was_found(spoilt: Validated) -> None:
    found = spoilt.model.sha256
    (told_of,) = spoilt.report(expected="F" * 64).findings
    assert told_of.message == f"the model's SHA-256 is {found}, not {'f' * 64}: it is another model, or another edition"
    write_header(spoilt.known.root / "words.safetensors", {"emb_params": (8, 768)})
    age(spoilt.known.root)
    spoilt.known.scan()
    (told_of,) = spoilt.report(Depth.HEADER, name="words", expected="0" * 64).findings
    assert "SHA-256 is not computed, not 000" in told_of.message


def test_a_part_that_this_server_does_not_use_is_valid_and_told(spoilt: Validated) -> None:
    write_published(spoilt.known.root / "vae.safetensors", "sd_ldm_vae")
    spoilt.known.scan()
    report = spoilt.report(Depth.HEADER, name="vae")
    assert [(one.severity, one.field) for one in report.findings] == [(Severity.WARNING, "")]
    assert report.valid


def test_progress_is_told_ten_times_a_second_and_at_the_end(spoilt: Validated, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[Progressed]()
    asked = Validation(model_id="one")
    validator = Validator(spoilt.model, asked, Path.resolve, told.append, lambda: False)
    validator._total = 50  # pyright: ignore[reportPrivateUsage]
    now = iter((100.0, 100.05, 100.11, 100.12, 100.13))
    monkeypatch.setattr("domains.model.validate.time.monotonic", lambda: next(now))
    for _ in range(5):
        validator._read(10)  # pyright: ignore[reportPrivateUsage]
    assert [one.completed for one in told] == [10, 30, 50]
    validator._total = 45  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("domains.model.validate.time.monotonic", lambda: 101.0)
    validator._read(1)  # pyright: ignore[reportPrivateUsage]
    assert (told[-1].completed, told[-1].total) == (45, 45)
